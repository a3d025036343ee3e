"""The PEP 517 build backend: maturin, with cuda/**/*.cu compiled to PTX before each wheel.

The PTX lies inside the package (python/subbyte/cuda/ptx), where maturin picks it up for a wheel and an editable install
finds it; a source distribution carries cuda/ itself and compiles it wherever it is built. NVRTC is a build requirement
and needs no GPU. Every other hook is maturin's own, and so are all config settings.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import maturin  # type: ignore[import-untyped]
from maturin import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = Mapping[str, Any] | None


def build_wheel(directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Compiles the PTX and builds the wheel into `directory`; returns its file name."""
    _compile_ptx()
    return str(maturin.build_wheel(directory, config_settings, metadata_directory))


def build_editable(directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Compiles the PTX into the source tree and builds the wheel that points there; returns its file name."""
    _compile_ptx()
    return str(maturin.build_editable(directory, config_settings, metadata_directory))


def _compile_ptx() -> None:
    compiler = _compiler()
    try:
        outputs = compiler.build()
    except compiler.CompileError as error:
        raise SystemExit(f"subbyte: the CUDA kernels do not compile\n{error}") from None
    for output in outputs:
        print(f"PTX: {output.path.name}{'' if output.fresh else ' (up to date)'}", flush=True)


def _compiler() -> ModuleType:
    """cuda/compile.py, which is a script beside the kernels and belongs to no package."""
    path = Path(__file__).resolve().parents[1] / "cuda" / "compile.py"
    spec = importlib.util.spec_from_file_location("subbyte_cuda_compile", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"subbyte: {path} is missing from this source tree")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses looks the module up by name while the file is still being executed
    spec.loader.exec_module(module)
    return module
