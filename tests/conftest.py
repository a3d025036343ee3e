"""Fixtures shared by all tests: where the real inputs are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

LONG = (
    *("cuda/test_compile.py", "cuda/test_launch.py", "test_build.py", "systems/test_best.py", "systems/test_awq.py"),
    *("kernels/test_ldlq.py", "pipeline/test_resume.py", "evaluate/test_embeddings.py", "cuda/test_lookup.py"),
    *("systems/test_spqr.py", "systems/test_smoothquant.py", "systems/test_gptq.py", "cuda/test_wna16_mma.py"),
)
"""What takes minutes begins first, so that no process works on it alone at the end."""

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many processes as cores already: more threads wait for each other, half as long again. Before torch loads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(os.environ.get("SUBBYTE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    places = {root / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("models/llama")` is that folder of real inputs; a clone without them skips the test and says so."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"{path} is not there: set SUBBYTE_SHARED to the folder of shared models and texts")
        return path

    return find
