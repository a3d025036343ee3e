"""The compiler of cuda/, what it makes for this session, and the kernels on the CPU."""

from __future__ import annotations

import importlib.util
import sys
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
    compiler.build(folder)
    return folder


@pytest.fixture(scope="session")
def emulated(ptx: Path, tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    """cuda/gemm/wna16.cu on the CPU."""
    text = (ptx / "wna16.sm_80.ptx").read_text()
    return Emulated(CUDA / "gemm" / "wna16.cu", text, tmp_path_factory.mktemp("emulated"))
