"""The compiler of cuda/, what it makes for this session, and the kernels on the CPU."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from tests.emulator import CUDA, Emulated


@pytest.fixture(scope="session")
def compiler() -> ModuleType:
    """cuda/compile.py; skips where its NVRTC is not installed."""
    spec = importlib.util.spec_from_file_location("subbyte_cuda_compile", CUDA / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    try:
        module.nvrtc()
    except module.CompileError as error:
        pytest.skip(str(error))
    return module


@pytest.fixture(scope="session")
def ptx(compiler: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the PTX of every kernel, made from the sources as they are."""
    folder = tmp_path_factory.mktemp("ptx")
    for path in compiler.PTX.glob("*.ptx"):  # what was built of the same sources is not built again
        shutil.copy(path, folder)
    compiler.build(folder)
    return folder


@pytest.fixture(scope="session")
def emulate(ptx: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Emulated]:
    """A kernel file of cuda/ on the CPU, by its name."""
    # One folder for all processes of this run, each of which has a temporary folder below it.
    root = tmp_path_factory.getbasetemp()
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "emulated"

    @cache
    def kernel(name: str) -> Emulated:
        (source,) = CUDA.rglob(f"{name}.cu")
        text = next(ptx.glob(f"{name}.sm_*.ptx")).read_text()  # entries are the same in all
        folder = shared / name
        folder.mkdir(parents=True, exist_ok=True)
        return Emulated.kernel(source, text, folder)

    return kernel


@pytest.fixture(scope="session")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    """cuda/gemm/wna16.cu on the CPU."""
    return emulate("wna16")
