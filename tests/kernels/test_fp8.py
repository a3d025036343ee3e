from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import magnitude
from tests.oracles.fp8 import case, cases

from subbyte import kernels
from subbyte.errors import ShapeError, UnknownNameError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.fp8(*case.args))


@pytest.mark.parametrize("format", ["e4m3fn", "e5m2"])
def test_every_code(format: str) -> None:
    """Products with one: NaN and infinity too."""
    every = np.arange(256, dtype=np.uint8)[:, None]
    one = np.array([[0x38 if format == "e4m3fn" else 0x3C]], np.uint8)
    scale = np.ones((1, 1), np.float32)
    got = kernels.fp8(every, one, scale, scale, format)[:, 0]
    want = np.float32([(-1) ** (code >> 7) * magnitude(code & 127, format) for code in range(256)])
    np.testing.assert_array_equal(got, want)


def test_does_not_depend_on_the_threads() -> None:
    one = case(20, 150, 300, (1, 128), (128, 128))
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(kernels.paths()[-1], threads):
            results.append(kernels.fp8(*one.args))
    assert all(np.array_equal(result, results[0]) for result in results)


def test_what_is_refused() -> None:
    x, weight, x_scale, w_scale, format, _ = case(4, 3, 260, (1, 128), (1, 0)).args
    bias = np.zeros(3, np.float32)
    for args in (
        (x, weight[:, :259].copy(), x_scale, w_scale),
        (x, weight, x_scale[:3].copy(), w_scale),
        (x, weight, x_scale[:, :2].copy(), w_scale),
        (x, weight, x_scale, w_scale[:2].copy()),
    ):
        with pytest.raises(ShapeError):
            kernels.fp8(*args, format, bias)
    with pytest.raises(ShapeError, match="bias"):
        kernels.fp8(x, weight, x_scale, w_scale, format, bias[:2].copy())
    with pytest.raises(UnknownNameError, match="e4m3fn"):
        kernels.fp8(x, weight, x_scale, w_scale, "e3m4")
