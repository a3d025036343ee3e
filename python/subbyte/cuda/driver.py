"""The CUDA driver through cuda-python (cuda.bindings 12.8 to 13), with its error codes turned into subbyte.errors."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from subbyte.errors import DependencyError, DriverError

__all__ = ["Device", "bindings", "call", "capability", "current", "devices", "driver_version", "hopper"]

# What to do about the errors that a user can do something about, by the driver's own names.
HINTS = {
    "CUDA_ERROR_NO_DEVICE": "see `nvidia-smi`; is CUDA_VISIBLE_DEVICES empty?",
    "CUDA_ERROR_STUB_LIBRARY": "libcuda.so.1 is the toolkit's stub: put the driver's own before it in LD_LIBRARY_PATH",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "the driver was updated while loaded: restart the machine",
    "CUDA_ERROR_OUT_OF_MEMORY": "free memory of the device, or pass fewer rows at a time",
}


@dataclass(frozen=True)
class Device:
    """A GPU as the driver counts them (CUDA_VISIBLE_DEVICES applies); `memory` in bytes."""

    index: int
    name: str
    capability: tuple[int, int]
    memory: int


@functools.cache
def bindings() -> Any:
    """The module cuda.bindings.driver, with the driver initialised.

    Raises DependencyError (cuda-python is not installed) or DriverError (no driver, or none that works). Only success
    is remembered, so a later call can succeed.
    """
    try:
        module = importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise DependencyError(
            "cuda.bindings", f"none ({error})", "cuda-python 12.8 or later", "pip install 'subbyte[cuda]'"
        ) from error
    try:
        _raise_unless_success(module, "cuInit", module.cuInit(0))
    except RuntimeError as error:  # cuda-python's own, when it finds no libcuda
        if isinstance(error, DriverError):
            raise
        hint = "install NVIDIA's driver, or pass CPU arrays"
        raise DriverError("CUDA driver", "no libcuda.so.1", "a driver for CUDA 12.8 or later", hint) from error
    return module


def call(name: str, *arguments: object) -> tuple[Any, ...]:
    """Calls a function of the driver and returns its results without the status; DriverError if that is no success."""
    module = bindings()
    return _raise_unless_success(module, name, getattr(module, name)(*arguments))


def _raise_unless_success(module: Any, name: str, results: tuple[Any, ...]) -> tuple[Any, ...]:
    status, *values = results
    if int(status) != 0:
        code = str(getattr(status, "name", status))
        raise DriverError(name, f"error {int(status)} ({code})", "success", HINTS.get(code, ""))
    return tuple(values)


def driver_version() -> tuple[int, int]:
    """The newest CUDA release that the installed driver supports, such as (12, 8)."""
    (number,) = call("cuDriverGetVersion")
    return number // 1000, number % 1000 // 10


def devices() -> list[Device]:
    """All GPUs. Raises DependencyError or DriverError as `bindings` does, also where the driver finds no GPU."""
    (count,) = call("cuDeviceGetCount")
    return [_device(index) for index in range(count)]


def _device(index: int) -> Device:
    (handle,) = call("cuDeviceGet", index)
    (name,) = call("cuDeviceGetName", 256, handle)
    (memory,) = call("cuDeviceTotalMem", handle)
    return Device(index, name.split(b"\0")[0].decode(), capability(index), int(memory))


@functools.cache
def capability(index: int) -> tuple[int, int]:
    """Compute capability of a device, such as (9, 0)."""
    attribute = bindings().CUdevice_attribute
    (handle,) = call("cuDeviceGet", index)
    (major,) = call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, handle)
    (minor,) = call("cuDeviceGetAttribute", attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, handle)
    return major, minor


def hopper(index: int) -> bool:
    """Whether a device is sm_90, which cuda/gemm/*_sm90a.cu are for."""
    return capability(index) == (9, 0)


@functools.cache
def name(index: int) -> str:
    """What the driver calls a device, such as "NVIDIA H200"."""
    return _device(index).name


@functools.cache
def multiprocessors(index: int) -> int:
    """How many a device has, such as 132."""
    (handle,) = call("cuDeviceGet", index)
    attribute = bindings().CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
    (count,) = call("cuDeviceGetAttribute", attribute, handle)
    return int(count)


@functools.cache
def shared_memory(index: int) -> int:
    """Bytes of shared memory that a block may have at most, such as 232448."""
    (handle,) = call("cuDeviceGet", index)
    attribute = bindings().CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    (count,) = call("cuDeviceGetAttribute", attribute, handle)
    return int(count)


def upload(data: bytes, index: int) -> int:
    """The address of a copy of data on a device, there for good: for small tables. No graph can hold this."""
    with current(index):
        (address,) = call("cuMemAlloc", len(data))
        call("cuMemcpyHtoD", address, data, len(data))
    return int(address)


@functools.cache
def _primary_context(index: int) -> Any:
    """The context that torch, CuPy and JAX work in too; retained once and kept."""
    (handle,) = call("cuDeviceGet", index)
    (context,) = call("cuDevicePrimaryCtxRetain", handle)
    return context


@contextmanager
def current(index: int) -> Iterator[None]:
    """The device's primary context is the thread's current one inside; the one before comes back."""
    call("cuCtxPushCurrent", _primary_context(index))
    try:
        yield
    finally:
        call("cuCtxPopCurrent")
