from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.dequantize_table import cases

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.dequantize_table(*case.args, **case.kwargs))


@every_path
def test_threads_change_nothing(path: str) -> None:
    codes = np.random.default_rng(1).integers(0, 16, (3, 99_999), np.uint8)
    scale, table = np.ones((3, 1), np.float32), np.linspace(-1, 1, 16, dtype=np.float32)[None]
    with kernels.forced("scalar", 1):
        alone = kernels.dequantize_table(codes, scale, table)
    for threads in (2, 5):
        with kernels.forced(path, threads):
            np.testing.assert_array_equal(kernels.dequantize_table(codes, scale, table), alone)


def test_what_is_not_finite_spreads() -> None:
    scale, table = np.float32([[1], [np.nan]]), np.float32([[np.inf, 0]])
    got = kernels.dequantize_table(np.array([[0, 1], [0, 1]], np.uint8), scale, table)
    np.testing.assert_array_equal(got, [[np.inf, 0], [np.nan, np.nan]])


def test_wrong_calls_are_refused() -> None:
    codes, scale, table = np.full((2, 6), 3, np.uint8), np.ones((2, 2), np.float32), np.ones((1, 4), np.float32)
    assert kernels.dequantize_table(codes, scale, table, group=3).all()
    with pytest.raises(errors.RangeError, match="codes"):
        kernels.dequantize_table(codes, scale, table[:, :3].copy(), group=3)
    for args in [(codes, scale[:1], table), (codes, scale, np.ones((3, 4), np.float32))]:
        with pytest.raises(errors.ShapeError):
            kernels.dequantize_table(*args, group=3)
    with pytest.raises(errors.ShapeError):
        kernels.dequantize_table(codes, scale, table, group=4)
