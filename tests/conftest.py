"""Fixtures shared by all tests: where the real inputs are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

LONG = ("cuda/test_compile.py", "cuda/test_launch.py", "test_build.py", "cuda/test_lookup.py", "cuda/test_wna16_mma.py")
"""What takes minutes begins first, so that no process works on it alone at the end."""

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
