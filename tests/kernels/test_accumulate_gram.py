from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.accumulate_gram import cases
from tests.oracles.case import Case

from subbyte import kernels
from subbyte.errors import ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    gram, x = case.args
    got = gram.copy()
    with kernels.forced(path):
        kernels.accumulate_gram(got, x)
    case.check(got)
    assert np.array_equal(got, got.T)


def test_does_not_depend_on_the_threads() -> None:
    x = np.random.default_rng(0).standard_normal((700, 600), np.float32)
    grams = []
    for threads in (1, 2, 3, 8):
        grams.append(np.zeros((600, 600), np.float32))
        with kernels.forced(threads=threads):
            kernels.accumulate_gram(grams[-1], x)
    assert all(np.array_equal(gram, grams[0]) for gram in grams)


@paths
def test_batches_add_up_and_nan_shows(path: str) -> None:
    x = np.random.default_rng(1).integers(-9, 10, (50, 12)).astype(np.float32)
    gram = np.zeros((12, 12), np.float32)
    with kernels.forced(path):
        for batch in np.split(x, [7, 7, 30]):
            kernels.accumulate_gram(gram, np.ascontiguousarray(batch))
        assert np.array_equal(gram, x.T @ x)
        x[3, 4] = np.nan
        kernels.accumulate_gram(gram, x)
    assert np.isnan(gram[4]).all()
    assert np.isnan(gram[:, 4]).all()
    assert np.isfinite(np.delete(np.delete(gram, 4, 0), 4, 1)).all()


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError):
        kernels.accumulate_gram(np.zeros((3, 3), np.float32), np.zeros((5, 4), np.float32))
