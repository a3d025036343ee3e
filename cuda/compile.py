"""Compiles every cuda/**/*.cu with NVRTC 12.8 to PTX for the wheel, and to cubin to check it.

No GPU, driver or toolkit is needed: NVRTC comes as the pip wheel nvidia-cuda-nvrtc-cu12 and is called through ctypes.
It is pinned because a driver refuses PTX that is newer than itself: 12.8 writes PTX 8.7, which every driver for CUDA
12.8 and later takes. Making PTX does not look into inline PTX; the assembler does, and tells registers and spills. So
each kernel is compiled for a real architecture, which gives both, and its PTX ends with what the assembler said.

    python cuda/compile.py                        # PTX for sm_80 and sm_90a, where `import subbyte` looks for it
                                                  # (of x_sm90a.cu for sm_90a alone, and so on)
    python cuda/compile.py --cubin OUT            # PTX and cubins, all made again
    python cuda/compile.py --arch sm_80 OUT
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

__all__ = [
    "ARCHITECTURES",
    "NVRTC",
    "CompileError",
    "Compiled",
    "Output",
    "Resources",
    "build",
    "compile_source",
    "nvrtc",
    "sources",
    "targets",
]

CUDA = Path(__file__).resolve().parent
PTX = CUDA.parent / "python" / "subbyte" / "cuda" / "ptx"
ARCHITECTURES = ("sm_80", "sm_90a", "sm_100a", "sm_120a")
ALONE = ("sm_100a", "sm_120a")  # for these, no other kernels than their own: devices take those for sm_80
NVRTC = "nvidia-cuda-nvrtc-cu12"
VERSION = (12, 8)
OPTIONS = ("--std=c++17", "--ptxas-options=-v")


class CompileError(RuntimeError):
    """NVRTC is missing or of another version, or a kernel does not compile; the text holds its log."""


@dataclass(frozen=True)
class Resources:
    """What the assembler gave one entry: registers a thread, bytes of spills and of static shared memory."""

    entry: str
    registers: int
    spill_stores: int
    spill_loads: int
    shared: int


@dataclass(frozen=True)
class Compiled:
    """What came of one .cu file: PTX, cubin and the log of both steps."""

    ptx: bytes
    cubin: bytes
    log: str


@dataclass(frozen=True)
class Output:
    """PTX that `build` wrote, or left as it was because its sources and options had not changed."""

    path: Path
    architecture: str
    fresh: bool
    resources: tuple[Resources, ...]


def nvrtc() -> ctypes.CDLL:
    """The pinned NVRTC. Looked up by its distribution, as NVRTC 13 of another package may lie in the same folder.

    Raises CompileError if it is not installed or is of another version.
    """
    try:
        files = importlib.metadata.files(NVRTC) or ()
    except importlib.metadata.PackageNotFoundError:
        raise CompileError(f"{NVRTC} is not installed; pip install '{NVRTC}==12.8.93' (no GPU is needed)") from None
    found = [Path(str(file.locate())) for file in files if file.name == "libnvrtc.so.12"]
    if not found:
        raise CompileError(f"{NVRTC} holds no libnvrtc.so.12; reinstall it")
    library = ctypes.CDLL(str(found[0]))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library, library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    if (major.value, minor.value) != VERSION:
        raise CompileError(f"NVRTC is {major.value}.{minor.value}, not 12.8; pip install '{NVRTC}==12.8.93'")
    return library


def _check(library: ctypes.CDLL, status: int) -> None:
    if status:
        raise CompileError(f"NVRTC: {library.nvrtcGetErrorString(status).decode()}")


def _get(library: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    data = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, data))
    return data.raw


def compile_source(source: Path, architecture: str) -> Compiled:
    """One .cu file for an architecture such as "sm_90a".

    Raises CompileError with the log if it does not compile or assemble; a warning fails too, so that none is shipped,
    and so does the assembler's note that it waits for each wgmma.
    """
    library = nvrtc()
    # The include path is the one option that names this machine; nothing of it reaches the output.
    options = [*OPTIONS, f"--gpu-architecture={architecture}", f"--include-path={CUDA}"]
    encoded = [option.encode() for option in options]
    program = ctypes.c_void_p()
    name = source.name.encode()
    _check(library, library.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), name, 0, None, None))
    try:
        status = library.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
        log = _get(library, "ProgramLog", program).rstrip(b"\0").decode(errors="replace").strip()
        if status or " warning" in log or "are serialized" in log:
            reason = library.nvrtcGetErrorString(status).decode() if status else "a warning"
            raise CompileError(f"{source} for {architecture}: {reason}\n{log}")
        return Compiled(_get(library, "PTX", program).rstrip(b"\0"), _get(library, "CUBIN", program), log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def sources(folder: Path = CUDA) -> list[Path]:
    """Every kernel, sorted; two of one name would overwrite each other's output, so that is a CompileError."""
    found = sorted(folder.rglob("*.cu"))
    names = [path.stem for path in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise CompileError(f"two kernels share a name: {', '.join(sorted(twice))}")
    return found


def headers(source: Path) -> set[Path]:
    """The files of cuda/ that a source includes, and those that they include."""
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        names = re.findall(r'^\s*#\s*include "([^"]+)"', waiting.pop().read_text(), re.MULTILINE)
        new = {CUDA / name for name in names} - found
        found |= new
        waiting += new
    return found


def targets(source: Path, architectures: Iterable[str]) -> list[str]:
    """Those of the architectures that a kernel is for: `x_sm90a.cu` needs what sm_90a alone has, others serve all."""
    own = re.search(r"_sm(\d+a?)$", source.stem)
    return [each for each in architectures if (each == f"sm_{own[1]}" if own else each not in ALONE)]


def digest(source: Path, architecture: str) -> str:
    """A hash of all that decides the output: kernel, headers, NVRTC's version, options and architecture."""
    state = hashlib.sha256(repr((VERSION, OPTIONS, architecture)).encode())
    for path in (source, *sorted(headers(source))):
        state.update(path.relative_to(CUDA).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()


def resources(log: str) -> tuple[Resources, ...]:
    """The assembler's `-v` log as one row an entry, sorted by name."""
    rows = []
    for part in log.split("Compiling entry function")[1:]:
        numbers = {
            key: int(found[1]) if (found := re.search(pattern, part)) else 0
            for key, pattern in {
                "registers": r"Used (\d+) registers",
                "spill_stores": r"(\d+) bytes spill stores",
                "spill_loads": r"(\d+) bytes spill loads",
                "shared": r"(\d+) bytes smem",
            }.items()
        }
        rows.append(Resources(entry=part.split("'")[1], **numbers))
    return tuple(sorted(rows, key=lambda row: row.entry))


def build(out: Path = PTX, architectures: Iterable[str] = ARCHITECTURES, *, cubin: bool = False) -> list[Output]:
    """Compiles all kernels into `out` as <kernel>.<architecture>.ptx, written whole or not at all.

    A PTX file begins with the hash of what it was made from, and is left alone while that is still true. It ends with a
    comment for each entry, the fields of its `Resources`. PTX of kernels that no longer exist is removed.

    cubin  the same as <kernel>.<architecture>.cubin, too, for people; then all are made again
    """
    out.mkdir(parents=True, exist_ok=True)

    def made(job: tuple[Path, str]) -> Output:
        source, architecture = job
        path = out / f"{source.stem}.{architecture}.ptx"
        head = f"// subbyte {digest(source, architecture)}\n".encode()
        fresh = cubin or not path.is_file() or not path.read_bytes().startswith(head)
        if fresh:
            compiled = compile_source(source, architecture)
            tail = "".join(f"// {' '.join(map(str, astuple(row)))}\n" for row in resources(compiled.log))
            _write(path, head + compiled.ptx + b"\n" + tail.encode())
            if cubin:
                _write(path.with_suffix(".cubin"), compiled.cubin)
        return Output(path, architecture, fresh, noted(path.read_text()))

    jobs = [(source, architecture) for source in sources() for architecture in targets(source, architectures)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # ctypes lets go of the interpreter while NVRTC works
        outputs = list(pool.map(made, jobs))
    kernels = {source.stem for source in sources()}
    for stale in out.glob("*.ptx"):
        if stale.name.split(".")[0] not in kernels:
            stale.unlink()
    return outputs


def noted(ptx: str) -> tuple[Resources, ...]:
    """What the end of a PTX file of `build` says of its entries."""
    rows = re.findall(r"^// (\w+) (\d+) (\d+) (\d+) (\d+)$", ptx, re.MULTILINE)
    return tuple(Resources(entry, *map(int, numbers)) for entry, *numbers in rows)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 and the compiler's log if something does not compile."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cubin", action="store_true", help="write cubins, too, beside the PTX; makes all again")
    parser.add_argument("--arch", action="append", metavar="SM", help="e.g. sm_80; once for each")
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT", help="a folder; the package's own if not given")
    given = parser.parse_args(arguments)
    if given.cubin and given.out is None:
        parser.error("--cubin needs OUT: the package ships PTX only")
    try:
        outputs = build(given.out or PTX, given.arch or ARCHITECTURES, cubin=given.cubin)
    except CompileError as error:
        print(error, file=sys.stderr)
        return 1
    for output in outputs:
        print(f"{output.path}{'' if output.fresh else ' (up to date)'}")
        if not output.fresh:
            continue
        width = max(len(row.entry) for row in output.resources)
        print(f"  {'entry':{width}}  registers  spill stores  spill loads  shared")
        for row in output.resources:
            numbers = f"{row.registers:9}  {row.spill_stores:12}  {row.spill_loads:11}  {row.shared:6}"
            print(f"  {row.entry:{width}}  {numbers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
