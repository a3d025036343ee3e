from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.fit_affine import numbers
from tests.oracles.quantize_affine import cases

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.quantize_affine(*case.args, **case.kwargs))


@every_path
@pytest.mark.parametrize("symmetric", [False, True])
def test_what_is_on_the_grid_stays(symmetric: bool, path: str) -> None:
    x = numbers((8, 256))
    for bits in range(1, 9):
        with kernels.forced(path):
            scale, zero = kernels.fit_affine(x, bits, group=64, symmetric=symmetric)
            codes = kernels.quantize_affine(x, scale, zero, bits, group=64)
            values = kernels.dequantize_affine(codes, scale, zero, group=64)
            np.testing.assert_array_equal(kernels.quantize_affine(values, scale, zero, bits, group=64), codes)
        # half a step; one more half where the zero point was rounded
        bound = np.repeat(scale, 64, axis=1) * (0.5 + 0.5 * (not symmetric)) * 1.0001
        assert (np.abs(values - x) <= bound).all()


@every_path
def test_a_row_of_zeros_stays(path: str) -> None:
    x = np.zeros((3, 40), np.float32)
    for symmetric in (False, True):
        with kernels.forced(path):
            scale, zero = kernels.fit_affine(x, 4, symmetric=symmetric)
            codes = kernels.quantize_affine(x, scale, zero, 4)
            assert not kernels.dequantize_affine(codes, scale, zero).any()


@every_path
@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(path: str, threads: int) -> None:
    x = numbers((3, 99_999))
    scale, zero = kernels.fit_affine(x, 5, group=33_333, symmetric=False)
    with kernels.forced("scalar", 1):
        alone = kernels.quantize_affine(x, scale, zero, 5, group=33_333)
    with kernels.forced(path, threads):
        np.testing.assert_array_equal(kernels.quantize_affine(x, scale, zero, 5, group=33_333), alone)


@every_path
def test_a_number_that_is_not_finite_is_named(path: str) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones((4, 70), np.float32)
        x[3, 66] = bad
        with kernels.forced(path), pytest.raises(errors.NotFiniteError, match="row 3, column 66"):
            kernels.quantize_affine(x, np.ones((4, 1), np.float32), np.zeros((4, 1), np.uint8), 4)


def test_wrong_calls_are_refused() -> None:
    x, scale, zero = np.ones((2, 12), np.float32), np.ones((2, 2), np.float32), np.zeros((2, 2), np.uint8)
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(errors.RangeError):
            kernels.quantize_affine(x, np.array([[1, 1], [1, bad]], np.float32), zero, 4, group=6)
    with pytest.raises(errors.RangeError):
        kernels.quantize_affine(x, scale, zero + np.uint8(16), 4, group=6)
    with pytest.raises(errors.RangeError):
        kernels.quantize_affine(x, scale, zero, 9, group=6)
    for group in (-1, 4, 5, 0):
        with pytest.raises((errors.ShapeError, errors.RangeError)):
            kernels.quantize_affine(x, scale, zero, 4, group=group)
