from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.dequantize_affine import cases

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.dequantize_affine(*case.args, **case.kwargs))


@every_path
def test_scales_that_are_not_finite_spread(path: str) -> None:
    codes = np.array([[8, 9], [7, 8]], np.uint8)
    scale, zero = np.array([[np.inf], [np.nan]], np.float32), np.full((2, 1), 8, np.uint8)
    with kernels.forced(path):
        got = kernels.dequantize_affine(codes, scale, zero)
    np.testing.assert_array_equal(got, [[np.nan, np.inf], [np.nan, np.nan]])


@every_path
@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(path: str, threads: int) -> None:
    random = np.random.default_rng(0)
    codes, zero = random.integers(0, 256, (3, 99_999), np.uint8), random.integers(0, 256, (3, 9), np.uint8)
    scale = random.standard_normal((3, 9)).astype(np.float32)
    with kernels.forced("scalar", 1):
        alone = kernels.dequantize_affine(codes, scale, zero, group=11_111)
    with kernels.forced(path, threads):
        np.testing.assert_array_equal(kernels.dequantize_affine(codes, scale, zero, group=11_111), alone)


def test_wrong_calls_are_refused() -> None:
    codes, scale, zero = np.zeros((2, 12), np.uint8), np.ones((2, 2), np.float32), np.zeros((2, 2), np.uint8)
    for group in (-1, 4, 5):
        with pytest.raises(errors.ShapeError):
            kernels.dequantize_affine(codes, scale, zero, group=group)
    with pytest.raises(errors.DtypeError):
        kernels.dequantize_affine(codes.astype(np.int8), scale, zero, group=6)
