from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.w8a8 import case, cases

from subbyte import kernels
from subbyte.errors import RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.w8a8(*case.args))


@paths
def test_every_pair_of_codes(path: str) -> None:
    every = np.arange(-128, 128, dtype=np.int8)[:, None]
    one = np.ones(1, np.float32)
    with kernels.forced(path):
        got = kernels.w8a8(every, every, one, one)
    wide = every.astype(np.float32)
    assert np.array_equal(got, wide @ wide.T)


@paths
def test_does_not_depend_on_the_threads(path: str) -> None:
    one = case(50, 200, 70)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.w8a8(*one.args))
    assert all(np.array_equal(result, results[0]) for result in results)


@paths
def test_no_columns_give_the_bias(path: str) -> None:
    bias = np.array([1, -2, 3], np.float32)
    one = np.ones(1, np.float32)
    with kernels.forced(path):
        got = kernels.w8a8(np.zeros((2, 0), np.int8), np.zeros((3, 0), np.int8), one, one, bias)
    assert np.array_equal(got, np.stack([bias, bias]))


def test_sums_that_could_overflow() -> None:
    long = np.zeros((1, 2**17), np.int8)
    one = np.ones(1, np.float32)
    with pytest.raises(RangeError):
        kernels.w8a8(long, long, one, one)


def test_shapes_that_do_not_fit() -> None:
    x, weight, x_scale, w_scale, bias = case(4, 3, 32).args
    for args in [
        (x, weight[:, :31].copy(), x_scale, w_scale),
        (x, weight, x_scale[:3], w_scale),
        (x, weight, x_scale, w_scale[:2]),
    ]:
        with pytest.raises(ShapeError):
            kernels.w8a8(*args, bias)
    with pytest.raises(ShapeError):
        kernels.w8a8(x, weight, x_scale, w_scale, bias[:2])
