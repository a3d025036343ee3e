from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.dequantize_block import BLOCKS, ELEMENTS, cases

from subbyte import errors, kernels


@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case) -> None:
    expected = case.oracle(*case.args, **case.kwargs)
    for path in kernels.paths():
        with kernels.forced(path):
            got = kernels.dequantize_block(*case.args, **case.kwargs)
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(got), ~numbers)
        np.testing.assert_array_equal(got[numbers].view(np.uint32), expected[numbers].view(np.uint32), strict=True)


@pytest.mark.parametrize(("block", "scale_dtype"), BLOCKS)
@pytest.mark.parametrize("element", ELEMENTS)
def test_what_was_dequantized_keeps_its_values(element: str, block: int, scale_dtype: str) -> None:
    x = np.random.default_rng(1).standard_normal((400, 2048), np.float32)
    options = {"element": element, "block": block, "scale_dtype": scale_dtype}
    values = kernels.dequantize_block(*kernels.quantize_block(x, **options), **options)
    again = kernels.dequantize_block(*kernels.quantize_block(values, **options), **options)
    if scale_dtype == "e8m0":
        np.testing.assert_array_equal(again, values)
    for threads in (1, 3):
        for path in kernels.paths():
            with kernels.forced(path, threads):
                got = kernels.dequantize_block(*kernels.quantize_block(x, **options), **options)
            np.testing.assert_array_equal(got, values)


def test_wrong_calls_are_refused() -> None:
    codes, scale = np.ones((2, 96), np.uint8), np.full((2, 3), 127, np.uint8)
    for options in ({"element": "e3m3"}, {"scale_dtype": "f32"}):
        with pytest.raises(errors.UnknownNameError):
            kernels.dequantize_block(codes, scale, **{"element": "e2m1", **options})
    for options in ({"block": 8}, {"tensor_scale": 0.0}, {"tensor_scale": float("inf")}):
        with pytest.raises(errors.RangeError):
            kernels.dequantize_block(codes, scale, "e2m1", **options)
    with pytest.raises(errors.ShapeError):
        kernels.dequantize_block(codes, scale[:, :2].copy(), "e2m1")
    with pytest.raises(errors.ShapeError, match="divisor of 80"):
        kernels.dequantize_block(codes[:, :80].copy(), scale, "e2m1")
    with pytest.raises(errors.DtypeError):
        kernels.dequantize_block(codes.astype(np.int8), scale, "e2m1")
