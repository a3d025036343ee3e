from __future__ import annotations

import numpy as np
import pytest
from tests.oracles import search_clip as oracle
from tests.oracles.case import Case
from tests.oracles.fit_affine import numbers

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", oracle.cases(), ids=str)
def test_finds_the_smallest_error(case: Case, path: str) -> None:
    weight, gram = case.args
    with kernels.forced(path):
        got = kernels.search_clip(*case.args, **case.kwargs)
    clips, errors_of = oracle.errors(*case.args, **case.kwargs)
    assert got.shape == clips.shape[:2]
    for row, g in np.ndindex(got.shape):
        (chosen,) = np.flatnonzero(clips[row, g] == got[row, g])[:1]
        # f32 sums of n^2 terms, each at most max|d|^2 |gram|: an error that is as good as the smallest will do
        n = gram.shape[1]
        slack = 2e-6 * n * np.abs(weight[row]).max() ** 2 * np.abs(gram[g]).max() * 1e-2
        assert errors_of[row, g, chosen] <= errors_of[row, g].min() * (1 + 1e-5) + slack


@every_path
def test_the_first_of_equal_errors_wins(path: str) -> None:
    weight = numbers((4, 64))
    with kernels.forced(path):
        got = kernels.search_clip(weight, np.zeros((2, 32, 32), np.float32), bits=3, group=32)
    np.testing.assert_array_equal(got, np.abs(weight).reshape(4, 2, 32).max(-1))


@every_path
@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(path: str, threads: int) -> None:
    weight, gram = oracle.large(37, 128, 64).args
    with kernels.forced("scalar", 1):
        alone = kernels.search_clip(weight, gram, bits=4, group=64)
    with kernels.forced(path, threads):
        np.testing.assert_array_equal(kernels.search_clip(weight, gram, bits=4, group=64), alone)


@every_path
def test_a_number_that_is_not_finite_is_named(path: str) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        weight, gram = np.ones((4, 64), np.float32), np.ones((2, 32, 32), np.float32)
        weight[3, 40] = bad
        with kernels.forced(path), pytest.raises(errors.NotFiniteError, match="row 3, column 40"):
            kernels.search_clip(weight, gram, bits=4, group=32)
        gram[1, 2, 3] = bad
        with kernels.forced(path), pytest.raises(errors.NotFiniteError):
            kernels.search_clip(np.ones((4, 64), np.float32), gram, bits=4, group=32)


def test_wrong_calls_are_refused() -> None:
    weight, gram = np.ones((4, 64), np.float32), np.ones((2, 32, 32), np.float32)
    for options in ({"bits": 9}, {"bits": 4, "shrink_steps": 0}, {"bits": 4, "shrink_steps": 21}):
        with pytest.raises(errors.RangeError):
            kernels.search_clip(weight, gram, group=32, **options)
    for group in (-1, 16, 30):
        with pytest.raises(errors.ShapeError):
            kernels.search_clip(weight, gram, bits=4, group=group)
    with pytest.raises(errors.UnknownNameError):
        kernels.search_clip(weight, gram, bits=4, group=32, scale_dtype="f64")
