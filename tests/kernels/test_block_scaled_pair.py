from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.block_scaled_pair import case, cases
from tests.oracles.case import Case

from subbyte import kernels
from subbyte.errors import RangeError, ShapeError, UnknownNameError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.block_scaled_pair(*case.args, **case.kwargs))


@paths
@pytest.mark.parametrize("rows", [1, 40])
def test_does_not_depend_on_the_threads(rows: int, path: str) -> None:
    one = case(rows, 300, 96, "e2m3", check=False)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.block_scaled_pair(*one.args, **one.kwargs))
    assert all(np.array_equal(result, results[0]) for result in results)


def test_decoding_x_gives_the_bits_of_block_scaled() -> None:
    x, words, x_scale, w_scale = case(5, 70, 160, "e4m3fn").args
    wide = kernels.dequantize_block(kernels.unpack(x, bits=8, cols=160), x_scale, "e4m3fn")
    got = kernels.block_scaled_pair(x, words, x_scale, w_scale, "e4m3fn", tensor_scale=0.3)
    assert np.array_equal(got, kernels.block_scaled(wide, words, w_scale, "e4m3fn", tensor_scale=0.3))


@paths
def test_not_finite_numbers_show(path: str) -> None:
    """NaN of a code and of a scale, of x in their rows, of the weight in their columns."""
    x, words, x_scale, w_scale = case(4, 4, 64, "e4m3fn").args
    x[1, 3], x_scale[2, 1], words[2, 3], w_scale[3, 0] = 0x7F, 0xFF, 0x7F, 0xFF
    with kernels.forced(path):
        got = kernels.block_scaled_pair(x, words, x_scale, w_scale, "e4m3fn")
    assert np.isnan(got[1:3]).all()
    assert np.isnan(got[:, 2:]).all()
    assert np.isfinite(got[[0, 3], :2]).all()


def test_what_does_not_fit_is_refused() -> None:
    x, words, x_scale, w_scale = case(2, 6, 64, "e2m1").args
    given = (x, words, x_scale, w_scale)
    for options in ({"element": "e3m4"}, {"element": "e2m1", "scale_dtype": "f32"}):
        with pytest.raises(UnknownNameError):
            kernels.block_scaled_pair(*given, **options)
    for options in ({"block": 64}, {"tensor_scale": 0.0}, {"tensor_scale": float("inf")}):
        with pytest.raises(RangeError):
            kernels.block_scaled_pair(*given, "e2m1", **options)
    for at in range(4):
        for wrong in (given[at][:, :1].copy(), given[at][:1].copy()):
            with pytest.raises(ShapeError):
                kernels.block_scaled_pair(*given[:at], wrong, *given[at + 1 :], "e2m1")
    with pytest.raises(ShapeError, match="x"):
        kernels.block_scaled_pair(*given, "e4m3fn")
