"""The shared models and what recipes make of them, measured once per session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.systems.quality import Quality


@pytest.fixture(scope="session")
def llama(shared: Callable[[str], Path]) -> Quality:
    return Quality(shared, "llama")


@pytest.fixture(scope="session")
def outliers(shared: Callable[[str], Path]) -> Quality:
    return Quality(shared, "llama-outliers")
