from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.int4_fp8 import E4M3, case, cases

from subbyte import kernels
from subbyte.errors import DtypeError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.int4_fp8(*case.args, **case.kwargs))


@paths
def test_every_code_of_x_and_of_a_scale(path: str) -> None:
    """Products with one, NaN among them."""
    every, one = np.arange(256, dtype=np.uint8)[:, None], np.ones(1, np.float32)
    words, scale = np.array([[9]], np.int32), np.array([[0x38]], np.uint8)  # both 1
    with kernels.forced(path):
        of_x = kernels.int4_fp8(every, words, one, scale)
        of_scale = kernels.int4_fp8(np.array([[0x38]], np.uint8), words.repeat(256, 0), one, every)
    np.testing.assert_array_equal(of_x[:, 0], E4M3.astype(np.float32))
    np.testing.assert_array_equal(of_scale[0], E4M3.astype(np.float32))


@paths
def test_every_code_of_the_weight(path: str) -> None:
    words = (np.arange(16, dtype=np.int32) << 12)[:, None]
    x, one = np.array([[0, 0, 0, 0x38, 0, 0, 0, 0]], np.uint8), np.ones(1, np.float32)
    with kernels.forced(path):
        got = kernels.int4_fp8(x, words, one, np.float32([[0.5]]).repeat(16, 0), tensor_scale=4.0)
    np.testing.assert_array_equal(got[0], 2 * (np.arange(16) - 8))


def test_is_fp8_with_the_same_weight() -> None:
    """Small whole numbers are E4M3, too."""
    one = case(5, 7, 256, scales="f4", tensor_scale=1.0)
    x, words, x_scale, w_scale = one.args
    codes = kernels.unpack(words, bits=4, cols=256).astype(np.float32) - 8
    weight = kernels.encode_minifloat(codes, "e4m3fn")
    want = kernels.fp8(x, weight, x_scale[:, None].copy(), w_scale)
    np.testing.assert_allclose(kernels.int4_fp8(*one.args, **one.kwargs), want, rtol=0, atol=2 * one.bound)


def test_does_not_depend_on_the_threads() -> None:
    one, results = case(20, 150, 384, 128, biased=True), []
    for threads in (1, 2, 5):
        with kernels.forced(kernels.paths()[-1], threads):
            results.append(kernels.int4_fp8(*one.args, **one.kwargs))
    assert all(np.array_equal(result, results[0]) for result in results)


def test_what_is_refused() -> None:
    x, words, x_scale, w_scale = case(4, 3, 128, 64).args
    for args, options in (
        ((x, words[:, :15].copy(), x_scale, w_scale), {"group": 64}),
        ((x, words, x_scale[:3].copy(), w_scale), {"group": 64}),
        ((x, words, x_scale, w_scale[:, :1].copy()), {"group": 64}),
        ((x, words, x_scale, w_scale), {"group": 48}),
        ((x, words, x_scale, w_scale), {"group": 64, "bias": np.zeros(2, np.float32)}),
    ):
        with pytest.raises(ShapeError):
            kernels.int4_fp8(*args, **options)
    for factor in (0.0, -1.0, float("nan"), float("inf"), 1e-40):
        with pytest.raises(RangeError, match="tensor_scale"):
            kernels.int4_fp8(x, words, x_scale, w_scale, 64, factor)
    with pytest.raises(DtypeError, match="w_scale"):
        kernels.int4_fp8(x, words, x_scale, w_scale.astype(np.int8), 64)
