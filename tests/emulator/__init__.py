"""Runs cuda/**/*.cu on the CPU: the unchanged file, compiled by g++ with cuda_on_cpu.h in place of CUDA."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

__all__ = ["CUDA", "Emulated", "compiled"]

CUDA = Path(__file__).resolve().parents[2] / "cuda"
LAUNCHER = """extern "C" bool launch_{0}(const unsigned* grid, const unsigned* block, void** args, bool reverse) {{
    return emulator::launch({0}, grid, block, args, reverse);
}}
"""


def compiled(code: str, folder: Path) -> ctypes.CDLL:
    """C++ code that includes files of cuda/, as a library; skips the test where there is no g++."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++ (Debian: apt install g++) to run CUDA kernels on the CPU")
    source, library = folder / "emulated.cpp", folder / "emulated.so"
    source.write_text(code)
    header = Path(__file__).with_name("cuda_on_cpu.h")
    # Contraction off: a product and a sum are then two roundings, as in the source, on every CPU.
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
    command = [compiler, *flags, "-include", str(header), f"-I{CUDA}", str(source), "-o", str(library)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return ctypes.CDLL(str(library))


class Emulated:
    """One kernel file; `entries` are those that the .cu instantiates, found in its PTX."""

    def __init__(self, kernel: Path, ptx: str, folder: Path) -> None:
        self.entries = re.findall(r"^\.visible \.entry (\w+)\(", ptx, re.MULTILINE)
        launchers = "".join(LAUNCHER.format(entry) for entry in self.entries)
        self.library = compiled(f'#include "{kernel.relative_to(CUDA)}"\n{launchers}', folder)
        self.library.guarded.restype = ctypes.c_void_p
        self.library.guarded.argtypes = [ctypes.c_size_t]
        self.library.release.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

    def launch(
        self,
        entry: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[np.ndarray | int | None],
        reverse: bool = False,
    ) -> None:
        """Runs an entry: arrays pass through guarded memory, numbers become `unsigned`, None a null pointer."""
        launch = getattr(self.library, f"launch_{entry}")
        launch.restype = ctypes.c_bool
        values: list[ctypes.c_void_p | ctypes.c_uint] = []
        copies: list[tuple[np.ndarray, int]] = []
        for arg in args:
            if isinstance(arg, np.ndarray):
                memory = self.library.guarded(arg.nbytes)
                ctypes.memmove(memory, arg.ctypes.data, arg.nbytes)
                copies.append((arg, memory))
                values.append(ctypes.c_void_p(memory))
            else:
                values.append(ctypes.c_void_p() if arg is None else ctypes.c_uint(arg))
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        met = launch((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), pointers, ctypes.c_bool(reverse))
        for array, memory in copies:
            ctypes.memmove(array.ctypes.data, memory, array.nbytes)
            self.library.release(memory, array.nbytes)
        assert met, f"{entry}: the threads of a block wait at different barriers"
