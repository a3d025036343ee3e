"""Fixtures shared by all tests: where the real inputs are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("SUBBYTE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared("models/llama")` is that folder of real inputs; a clone without them skips the test and says so."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"{path} is not there: set SUBBYTE_SHARED to the folder of shared models and texts")
        return path

    return find
