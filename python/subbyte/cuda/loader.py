"""From a kernel's name to a launch: the PTX that a device takes, loaded once per device, started on a stream."""

from __future__ import annotations

import ctypes
import functools
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subbyte.cuda import driver
from subbyte.errors import DeviceError, DriverError, DtypeError

__all__ = ["Entry", "Ptx", "choose", "launch", "load", "ptx", "stream_handle"]

FOLDER = Path(__file__).with_name("ptx")
STATIC_SHARED = 48 * 1024  # bytes of dynamic shared memory that need no permission


@dataclass(frozen=True)
class Ptx:
    """One PTX file of the installation: its kernel, target ("sm_90a") and version of PTX ("8.7")."""

    kernel: str
    architecture: str
    version: str
    path: Path


@dataclass(frozen=True)
class Entry:
    """A function of a loaded module: `function` is the driver's handle, good on device `device`."""

    name: str
    device: int
    function: Any


def ptx() -> list[Ptx]:
    """Every PTX file that the package carries, sorted; empty in a checkout that was not built."""
    return [_described(path) for path in sorted(FOLDER.glob("*.ptx"))]


def _described(path: Path) -> Ptx:
    kernel, architecture, _ = path.name.split(".")
    with path.open(encoding="ascii") as file:
        version = re.search(r"^\.version +([\d.]+)", file.read(4096), re.MULTILINE)
    return Ptx(kernel, architecture, version[1] if version else "unknown", path)


def choose(kernel: str, capability: tuple[int, int], found: Sequence[Ptx]) -> Ptx:
    """The PTX for a device: its exact architecture ("sm_90a" on 9.0) first, else the highest plain one not above it.

    Code for an "a" architecture uses instructions that no other one has, so it serves that one alone.
    Raises DriverError if none fits.
    """
    mine = {ptx.architecture: ptx for ptx in found if ptx.kernel == kernel}
    if not mine:
        hint = "the wheel brings it; in a checkout run `python cuda/compile.py` (no GPU needed)"
        raise DriverError(kernel, "no PTX in this installation", f"{FOLDER.name}/{kernel}.*.ptx", hint)
    major, minor = capability
    if exact := mine.get(f"sm_{major}{minor}a"):
        return exact
    plain = {int(name[3:]): ptx for name, ptx in mine.items() if name[3:].isdigit()}
    fitting = [number for number in plain if number <= 10 * major + minor]
    if not fitting:
        built = ", ".join(sorted(mine))
        raise DriverError(kernel, f"a device of compute capability {major}.{minor}", f"one that takes {built}")
    return plain[max(fitting)]


_loading = threading.Lock()
_modules: dict[tuple[int, str], Any] = {}


def _module(kernel: str, device: int) -> Any:
    with _loading:
        if (device, kernel) not in _modules:
            chosen = choose(kernel, driver.capability(device), ptx())
            with driver.current(device):
                _modules[device, kernel] = _loaded(chosen)
        return _modules[device, kernel]


def _loaded(chosen: Ptx) -> Any:
    cuda = driver.bindings()
    # The driver reads up to a zero byte, which the file has not.
    status, module = cuda.cuModuleLoadData(chosen.path.read_bytes() + b"\0")
    code = int(status)
    if code == 222:  # CUDA_ERROR_UNSUPPORTED_PTX_VERSION
        major, minor = driver.driver_version()
        raise DriverError(
            f"{chosen.kernel}.{chosen.architecture}",
            f"PTX {chosen.version} and a driver for CUDA {major}.{minor}",
            "a driver at least as new as the PTX (8.7 came with CUDA 12.8, driver 570)",
            "update the driver; `subbyte doctor` shows both versions",
        )
    if code != 0:
        what = f"{chosen.kernel}.{chosen.architecture}"
        raise DriverError(what, f"error {code} ({getattr(status, 'name', status)})", "PTX that the driver can load")
    return module


@functools.cache
def load(kernel: str, entry: str, device: int) -> Entry:
    """The entry point `entry` of cuda/**/<kernel>.cu on a device, from cache after the first call.

    The first call for a kernel compiles its PTX in the driver, so make one before capturing a graph. Raises DriverError
    (no driver, no device, no PTX that the device takes, no such entry) or DependencyError (no cuda-python).
    """
    module = _module(kernel, device)
    with driver.current(device):
        try:
            (function,) = driver.call("cuModuleGetFunction", module, entry.encode())
        except DriverError as error:
            raise DriverError(entry, error.args[1], f"an entry of cuda/**/{kernel}.cu") from error
    return Entry(entry, device, function)


def launch(
    entry: Entry,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    args: Sequence[Any],
    shared: int = 0,
    stream: object = None,
) -> None:
    """Starts an entry on a stream and returns at once: allocates, copies and waits for nothing, so graphs can hold it.

    args    ctypes values in the order of the kernel's parameters, pointers as c_void_p
    shared  bytes of dynamic shared memory
    stream  None (the legacy default stream), the handle as an int, or an object with `__cuda_stream__`, such as a
            stream of cuda.core, torch or CuPy
    Raises DriverError if the driver refuses the launch. What the kernel itself does wrong shows later, on the stream.
    """
    handle = stream_handle(stream)
    # cuLaunchKernel copies the values before it returns, so these may go with this call.
    pointers = (ctypes.c_void_p * len(args))(*(ctypes.addressof(argument) for argument in args))
    with driver.current(entry.device):
        if shared > STATIC_SHARED:
            limit = driver.bindings().CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            driver.call("cuFuncSetAttribute", entry.function, limit, shared)
        driver.call("cuLaunchKernel", entry.function, *grid, *block, shared, handle, ctypes.addressof(pointers), 0)


def stream_handle(stream: object) -> int:
    """A stream as the integer that the driver knows it by; DtypeError if it is no stream."""
    if stream is None:
        return 0
    if isinstance(stream, int) and not isinstance(stream, bool):
        if stream < 0:
            raise DeviceError("stream", stream, "a handle, which is never negative")
        return stream
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is not None:
        # cuda.core before 0.3 had it as a property
        _, handle = protocol() if callable(protocol) else protocol
        return int(handle)
    for attribute in ("cuda_stream", "ptr"):  # torch and CuPy before they spoke the protocol
        handle = getattr(stream, attribute, None)
        if isinstance(handle, int):
            return handle
    raise DtypeError("stream", type(stream).__name__, "None, an int, or an object with __cuda_stream__")
