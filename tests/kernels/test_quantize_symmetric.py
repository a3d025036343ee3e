from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.fit_affine import numbers
from tests.oracles.quantize_symmetric import cases

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.quantize_symmetric(*case.args, **case.kwargs))


@every_path
def test_is_the_affine_quantizer_without_its_offset(path: str) -> None:
    x = numbers((5, 96))
    for bits in range(1, 9):
        with kernels.forced(path):
            scale, zero = kernels.fit_affine(x, bits, group=32)
            codes = kernels.quantize_affine(x, scale, zero, bits, group=32)
            signed = kernels.quantize_symmetric(x, scale, bits, group=32, narrow=False)
        np.testing.assert_array_equal(signed, codes.astype(np.int16) - 2 ** (bits - 1))


@every_path
def test_a_number_that_is_not_finite_is_named(path: str) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones((4, 70), np.float32)
        x[3, 66] = bad
        with kernels.forced(path), pytest.raises(errors.NotFiniteError, match="row 3, column 66"):
            kernels.quantize_symmetric(x, np.ones((4, 1), np.float32))


def test_wrong_calls_are_refused() -> None:
    x, scale = np.ones((2, 12), np.float32), np.ones((2, 2), np.float32)
    for bad in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(errors.RangeError):
            kernels.quantize_symmetric(x, np.array([[1, 1], [1, bad]], np.float32), group=6)
    for bits in (0, 1, 9):
        with pytest.raises(errors.RangeError):
            kernels.quantize_symmetric(x, scale, bits, group=6)
    for group in (-1, 4, 5):
        with pytest.raises(errors.ShapeError):
            kernels.quantize_symmetric(x, scale, group=group)
