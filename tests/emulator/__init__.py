"""Runs cuda/**/*.cu on the CPU: the unchanged file, compiled by g++ with cuda_on_cpu.h in place of CUDA."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

__all__ = ["CUDA", "Banks", "Emulated", "Problem", "compiled"]

HERE = Path(__file__).resolve().parent
CUDA = HERE.parents[1] / "cuda"
LAUNCHER = """extern "C" bool launch_{0}(const unsigned* grid, const unsigned* block, size_t shared, void** args,
                                        bool reverse, bool count) {{
    return emulator::run(emulator::body<{0}>, args, grid, block, shared, reverse, count);
}}
"""


class Problem(Exception):
    """What a kernel did that no kernel may do (cuda_on_cpu.h has the list)."""


@dataclass(frozen=True)
class Banks:
    """Accesses of a launch to shared memory, each 32 banks wide, and how many a better layout would have saved."""

    wavefronts: int
    conflicts: int


def compiled(code: str, folder: Path) -> ctypes.CDLL:
    """C++ code that includes files of cuda/, as a library; skips the test where there is no g++.

    The folder is of this code alone; processes may share it, and then one of them compiles.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++ (Debian: apt install g++) to run CUDA kernels on the CPU")
    source, library, made = folder / "emulated.cpp", folder / "emulated.so", folder / "new.so"
    # Contraction off: a product and a sum are then two roundings, as in the source, on every CPU.
    # Without unique symbols, or two kernels of one process would share the static memory of a helper.
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-fno-gnu-unique"]
    flags += ["-Wall", "-Werror", "-Wno-unknown-pragmas", f"-I{HERE}"]
    watched = [*flags, "-fsanitize=thread", "-include", "cuda_on_cpu.h", f"-I{CUDA}", "-Wno-tsan"]
    with FileLock(folder / "lock"):
        if not library.exists():
            source.write_text(code)
            for command in (
                [*watched, "-c", str(source), "-o", str(folder / "kernel.o")],
                [*flags, "-c", str(HERE / "runtime.cpp"), "-o", str(folder / "runtime.o")],
                ["-shared", str(folder / "kernel.o"), str(folder / "runtime.o"), "-Wl,-Bsymbolic", "-o", str(made)],
            ):
                run = subprocess.run([compiler, *command], capture_output=True, text=True, check=False)
                assert run.returncode == 0, run.stderr
            made.rename(library)
    return ctypes.CDLL(str(library))


class Emulated:
    """A kernel of cuda/, or C++ code with `entries`; those of a .cu are found in its PTX."""

    def __init__(self, code: str, entries: Sequence[str], folder: Path) -> None:
        self.entries = list(entries)
        self.library = compiled(code + "\n" + "".join(map(LAUNCHER.format, self.entries)), folder)
        self.library.acquire.restype = ctypes.c_void_p
        self.library.acquire.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_bool]
        self.library.release.argtypes = [ctypes.c_void_p]
        self.library.problem.restype = ctypes.c_char_p
        self.library.counted.restype = ctypes.c_size_t

    @classmethod
    def kernel(cls, kernel: Path, ptx: str, folder: Path) -> Emulated:
        """One kernel file and the text of its PTX."""
        entries = re.findall(r"^\.visible \.entry (\w+)\(", ptx, re.MULTILINE)
        return cls(f'#include "{kernel.relative_to(CUDA)}"', entries, folder)

    def launch(
        self,
        entry: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[np.ndarray | int | float | None],
        *,
        out: Sequence[np.ndarray] = (),
        shared: int = 0,
        reverse: bool = False,
        count: bool = False,
        offset: int = 0,
    ) -> Banks:
        """Runs an entry: arrays go through watched memory, numbers become `unsigned` or `float`, None a null pointer.

        out      arrays among `args` that the kernel must write before it reads them
        reverse  threads and blocks run from the last to the first
        count    count bank conflicts, which is slow
        offset   bytes from an address that every access is aligned to, to where each array begins
        Raises Problem with the first thing that went wrong.
        """
        launch = getattr(self.library, f"launch_{entry}")
        launch.restype = ctypes.c_bool
        values: list[ctypes.c_void_p | ctypes.c_uint | ctypes.c_float] = []
        copies: list[tuple[np.ndarray, int]] = []
        for index, arg in enumerate(args):
            if isinstance(arg, np.ndarray):
                given = not any(arg is each for each in out)
                memory = self.library.acquire(arg.nbytes, offset, f"argument {index}".encode(), given)
                assert memory, "no memory"
                ctypes.memmove(memory, arg.ctypes.data, arg.nbytes)
                copies.append((arg, memory))
                values.append(ctypes.c_void_p(memory))
            elif arg is None:
                values.append(ctypes.c_void_p())
            else:
                values.append(ctypes.c_float(arg) if isinstance(arg, float) else ctypes.c_uint(arg))
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        sides = (ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block)
        well = launch(*sides, ctypes.c_size_t(shared), pointers, ctypes.c_bool(reverse), ctypes.c_bool(count))
        for array, memory in copies:
            ctypes.memmove(array.ctypes.data, memory, array.nbytes)
            self.library.release(memory)
        if not well:
            raise Problem(f"{entry}: {self.library.problem().decode()}")
        counted = self.library.counted
        return Banks(wavefronts=counted(ctypes.c_bool(False)), conflicts=counted(ctypes.c_bool(True)))
