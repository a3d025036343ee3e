from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.block_scaled import case, cases
from tests.oracles.case import Case
from tests.oracles.dequantize_block import ELEMENTS

from subbyte import kernels
from subbyte.errors import RangeError, ShapeError, UnknownNameError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.block_scaled(*case.args, **case.kwargs))


@paths
@pytest.mark.parametrize("rows", [1, 8, 40])
def test_does_not_depend_on_the_threads(rows: int, path: str) -> None:
    one = case(rows, 300, 96, "e2m3", check=False)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.block_scaled(*one.args, **one.kwargs))
    assert all(np.array_equal(result, results[0]) for result in results)


@pytest.mark.parametrize("element", ELEMENTS)
def test_multiplies_what_quantize_block_gives(element: str) -> None:
    """Ones in x read the weight back: the values of `dequantize_block`, sums of one."""
    weight = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    codes, scale = kernels.quantize_block(weight, element)
    words = kernels.pack(codes, bits=ELEMENTS[element])
    got = kernels.block_scaled(np.eye(64, dtype=np.float32), words, scale, element)
    np.testing.assert_array_equal(got.T, kernels.dequantize_block(codes, scale, element))


@paths
def test_not_finite_numbers_show(path: str) -> None:
    """NaN of x in its row; NaN of a code and of a scale in their columns."""
    x, words, scale = case(3, 4, 64, "e4m3fn").args
    x[1, 5] = np.nan
    words[2, 3], scale[3, 1] = 0x7F, 0xFF
    with kernels.forced(path):
        got = kernels.block_scaled(x, words, scale, "e4m3fn")
    assert np.isnan(got[1]).all()
    assert np.isnan(got[:, 2:]).all()
    assert np.isfinite(got[[0, 2], :2]).all()


def test_no_columns_give_zeros() -> None:
    x, words, scale = np.zeros((2, 0), np.float32), np.zeros((3, 0), np.int32), np.zeros((3, 0), np.uint8)
    assert np.array_equal(kernels.block_scaled(x, words, scale, "e2m1"), np.zeros((2, 3), np.float32))


def test_what_does_not_fit_is_refused() -> None:
    x, words, scale = case(2, 6, 32, "e2m1").args
    for options in ({"element": "e3m4"}, {"element": "e2m1", "scale_dtype": "f32"}):
        with pytest.raises(UnknownNameError):
            kernels.block_scaled(x, words, scale, **options)
    for options in ({"block": 64}, {"tensor_scale": 0.0}, {"tensor_scale": float("inf")}):
        with pytest.raises(RangeError):
            kernels.block_scaled(x, words, scale, "e2m1", **options)
    for args in ((x[:, :31].copy(), words, scale), (x, words[:, :3].copy(), scale), (x, words, scale[:5])):
        with pytest.raises(ShapeError):
            kernels.block_scaled(*args, "e2m1")
    with pytest.raises(ShapeError, match="words"):
        kernels.block_scaled(x, words, scale, "e4m3fn")
