from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.fit_affine import numbers
from tests.oracles.quantize_tokens import cases

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.quantize_tokens(*case.args, **case.kwargs))


@every_path
@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(path: str, threads: int) -> None:
    x = numbers((301, 1030))
    with kernels.forced("scalar", 1):
        codes, scale = kernels.quantize_tokens(x)
    with kernels.forced(path, threads):
        got = kernels.quantize_tokens(x)
    np.testing.assert_array_equal(got[0], codes)
    np.testing.assert_array_equal(got[1], scale)


@every_path
def test_a_scaled_row_has_the_same_codes(path: str) -> None:
    x = numbers((4, 100))
    with kernels.forced(path):
        codes, scale = kernels.quantize_tokens(x)
        others, scales = kernels.quantize_tokens(x * np.float32(64))
    np.testing.assert_array_equal(others, codes)
    np.testing.assert_array_equal(scales, scale * 64)


def test_wrong_calls_are_refused() -> None:
    x = np.ones((2, 12), np.float32)
    for eps in (0.0, -1.0, float("nan"), float("inf"), 1e-40):
        with pytest.raises(errors.RangeError):
            kernels.quantize_tokens(x, eps=eps)
    with pytest.raises(errors.ShapeError):
        kernels.quantize_tokens(x[0])
