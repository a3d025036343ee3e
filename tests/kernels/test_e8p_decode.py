from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.e8p_decode import cases, table

from subbyte import kernels
from subbyte.errors import ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str, threads: int) -> None:
    with kernels.forced(path, threads):
        case.check(kernels.e8p_decode(*case.args, **case.kwargs))


def test_the_codebook_is_what_the_paper_says() -> None:
    """65536 different values; less their shift, half-integers of even sum."""
    values = table()
    assert len(np.unique(values, axis=0)) == 65536
    lattice = np.where(((values - 0.25) % 1 == 0.5).all(1, keepdims=True), values - 0.25, values + 0.25)
    assert (lattice % 1 == 0.5).all()
    assert (lattice.sum(1) % 2 == 0).all()


def test_codes_without_rows_are_refused() -> None:
    with pytest.raises(ShapeError):
        kernels.e8p_decode(np.zeros(3, np.uint16))
