from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.hadamard_quantize import cases

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.hadamard_quantize(*case.args, **case.kwargs))


@every_path
@pytest.mark.parametrize("n", [64, 92, 344, 2048])
def test_is_both_kernels_one_after_the_other_whatever_the_threads(path: str, n: int) -> None:
    rng = np.random.default_rng(n)
    x, signs = rng.standard_normal((200, n)).astype(np.float32), rng.choice(np.float32([-1, 1]), n)
    with kernels.forced("scalar", 1):
        want = kernels.quantize_tokens(kernels.hadamard(x * signs))
    with kernels.forced(path, 3):
        got = kernels.hadamard_quantize(x, signs)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_outlier_is_spread_before_the_scale_is_taken() -> None:
    """Why there are rotations: one large number costs the others their codes, unless it is shared by all."""
    x = np.random.default_rng(0).standard_normal((1, 1024)).astype(np.float32)
    x[0, 77] = 300
    wide = kernels.hadamard(x).astype(np.float64)
    codes, scale = kernels.hadamard_quantize(x)
    plain, plain_scale = kernels.quantize_tokens(x)
    assert scale[0] < plain_scale[0] / 20
    assert abs(codes * scale[:, None] - wide).max() < abs(plain * plain_scale[:, None] - x).max() / 20


def test_wrong_calls_are_refused() -> None:
    x = np.ones((2, 12), np.float32)
    with pytest.raises(errors.RangeError):
        kernels.hadamard_quantize(x, eps=0.0)
    with pytest.raises(errors.RangeError):
        kernels.hadamard_quantize(np.ones((2, 4099), np.float32))
    with pytest.raises(errors.UnknownNameError):
        kernels.hadamard_quantize(x, format="e5m2")
    for arrays in ((x[0],), (x, np.ones(11, np.float32))):
        with pytest.raises(errors.ShapeError):
            kernels.hadamard_quantize(*arrays)
