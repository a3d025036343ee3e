"""What a launch needs to know of an array on a GPU, whatever its framework: pointer, shape, strides, dtype, device.

All of it comes through DLPack, which torch, CuPy and JAX speak alike and which knows bfloat16; results are allocated by
the framework that the inputs came from.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from subbyte.cuda import driver
from subbyte.errors import DeviceError, DtypeError, StrideError

__all__ = ["View", "constant", "current_stream", "empty", "exported", "view"]

CUDA, MANAGED = 2, 13  # DLPack's kDLCUDA and kDLCUDAManaged
DEVICES = {1: "the CPU", CUDA: "CUDA", 3: "pinned host memory", 10: "ROCm", MANAGED: "managed CUDA memory"}
KINDS = {0: "i", 1: "u", 2: "f", 4: "bf", 6: "bool"}  # DLDataTypeCode; anything else is shown by its number
FRAMEWORKS = {"torch": "Tensor", "cupy": "ndarray", "jax": "Array"}


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h; a capsule "dltensor" points to a struct that begins with it."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True)
class View:
    """An array as a kernel sees it; `dtype` as "f16", "bf16", "i32", "u8"; strides in elements.

    `framework` is "" for one that is neither torch nor CuPy nor JAX. `owner` keeps the memory alive.
    """

    what: str
    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    itemsize: int
    device: int
    framework: str = ""
    owner: object = field(default=None, repr=False, compare=False)

    def expect(self, *dtypes: str, beside: View | None = None) -> None:
        """Raises the error that fits unless the dtype is one of these, the array row-major, aligned and beside that."""
        if self.dtype not in dtypes:
            raise DtypeError(self.what, self.dtype, " or ".join(dtypes))
        if beside is not None and (self.framework, self.device) != (beside.framework, beside.device):
            ours, theirs = (f"{view.framework} on device {view.device}" for view in (self, beside))
            raise DeviceError(self.what, ours, f"{theirs}, as {beside.what}", "move it there")
        dense = row_major(self.shape)
        axes = zip(self.shape, self.strides, dense, strict=True)
        if 0 not in self.shape and any(size > 1 and have != want for size, have, want in axes):
            raise StrideError(self.what, f"strides {self.strides}", f"row-major {dense}", "pass a contiguous copy")
        if self.pointer % self.itemsize:
            raise StrideError(self.what, "a misaligned pointer", f"a multiple of {self.itemsize} bytes", "pass a copy")


def view(what: str, array: Any) -> View:
    """An array on a CUDA device, named `what` in errors.

    Raises DtypeError (does not speak DLPack) or DeviceError (not on a CUDA device, or of a framework that cannot be
    asked for the result).
    """
    if not hasattr(array, "__dlpack_device__"):
        raise DtypeError(what, type(array).__name__, "an array that speaks DLPack")
    kind, _ = array.__dlpack_device__()
    if int(kind) not in (CUDA, MANAGED):
        place = DEVICES.get(int(kind), f"a device of DLPack type {int(kind)}")
        raise DeviceError(what, place, "a CUDA device", "subbyte.kernels takes arrays of the CPU")
    seen = exported(what, array)
    if not seen.framework:
        raise DeviceError(what, type(array).__module__, " or ".join(FRAMEWORKS))
    return seen


def exported(what: str, array: Any) -> View:
    """The array through DLPack, on whatever device. Nothing is copied."""
    framework = _framework(array)
    # Nobody is to synchronise: the stream that the kernel runs on is the one that the array was made on.
    if framework == "torch":
        # The method would refuse what wants a gradient, or is on another device than torch's current one.
        capsule = importlib.import_module("torch.utils.dlpack").to_dlpack(array)
    elif framework == "jax":
        # It does not tell its streams, so there is no ordering behind its work other than to wait for it.
        array.block_until_ready()
        capsule = array.__dlpack__()
    else:
        on_gpu = int(array.__dlpack_device__()[0]) in (CUDA, MANAGED)
        capsule = array.__dlpack__(stream=-1) if on_gpu else array.__dlpack__()
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(get(capsule, b"dltensor"))
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    # No strides is DLPack's way to say row-major.
    strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim)) if tensor.strides else row_major(shape)
    kind = KINDS.get(tensor.code, f"type {tensor.code} of ")
    return View(
        what=what,
        pointer=(tensor.data or 0) + tensor.byte_offset,
        shape=shape,
        strides=strides,
        dtype=f"{kind}{tensor.bits}" + (f"x{tensor.lanes}" if tensor.lanes > 1 else ""),
        itemsize=max(1, tensor.bits * tensor.lanes // 8),
        device=tensor.device_id,
        framework=framework,
        owner=(capsule, array),
    )


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides, in elements, of a row-major array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _framework(array: object) -> str:
    """Which framework the array is of; none is imported, as one whose array we hold already is."""
    for name, kind in FRAMEWORKS.items():
        module = sys.modules.get(name)
        if module is not None and isinstance(array, getattr(module, kind)):
            return name
    return ""


def empty(like: Any, framework: str, shape: tuple[int, ...], dtype: str = "") -> Any:
    """An uninitialised array of the framework and device of `like`, on the framework's current stream.

    dtype  as the framework calls it, such as "float32"; "" is that of `like`
    """
    module = importlib.import_module("jax.numpy" if framework == "jax" else framework)
    kind = getattr(module, dtype) if dtype else like.dtype
    if framework == "cupy":
        with like.device:
            return module.empty(shape, kind)
    return module.empty(shape, dtype=kind, device=like.device)


def constant(what: str, table: np.ndarray, device: int) -> View:
    """A copy of a small table on a device, there for good; make each once, and outside of graphs."""
    data = np.ascontiguousarray(table)
    pointer, strides = driver.upload(data.tobytes(), device), row_major(data.shape)
    kind = f"{data.dtype.kind}{8 * data.itemsize}"
    return View(what, pointer, data.shape, strides, kind, data.itemsize, device)


def current_stream(framework: str, device: int) -> object:
    """The stream that the framework works on, on that device; JAX tells none: the legacy default stream."""
    if framework == "torch":
        return sys.modules["torch"].cuda.current_stream(device).cuda_stream
    if framework == "cupy":
        return sys.modules["cupy"].cuda.get_current_stream(device).ptr
    return None
