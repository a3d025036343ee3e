from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import FORMATS, cases, code_dtype

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.decode_minifloat(*case.args, **case.kwargs))


@every_path
@pytest.mark.parametrize(
    ("format", "peer"),
    [
        ("e4m3fn", ml_dtypes.float8_e4m3fn),
        ("e5m2", ml_dtypes.float8_e5m2),
        ("e3m2", ml_dtypes.float6_e3m2fn),
        ("e2m3", ml_dtypes.float6_e2m3fn),
        ("e2m1", ml_dtypes.float4_e2m1fn),
        ("e8m0", ml_dtypes.float8_e8m0fnu),
        ("bf16", ml_dtypes.bfloat16),
        ("f16", np.float16),
    ],
)
def test_agrees_with_ml_dtypes(format: str, peer: type, path: str) -> None:
    bits = min(1 + sum(FORMATS[format][:2]), 8 if format == "e8m0" else 16)
    codes = np.arange(1 << bits).astype(code_dtype(format))
    with kernels.forced(path):
        got = kernels.decode_minifloat(codes, format)
    expected = codes.view(peer).astype(np.float32)
    np.testing.assert_array_equal(got, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(expected[numbers]))


@every_path
def test_abfloat_has_the_values_of_olive(path: str) -> None:
    """Four bits with the biases beside int4 and flint4, and both forms of eight (OliVe's sheet)."""
    every = np.arange(1, 128, dtype=np.uint8)
    with kernels.forced(path):
        four, eight, paper = (
            kernels.decode_minifloat(every[:count], f"abfloat_{name}")
            for name, count in (("e2m1", 7), ("e2m5", 127), ("e4m3", 127))
        )
        # x in units of int4, whose largest is 7: ties, of either sign, go to the larger
        outliers = np.float32([9, 14, 20, -20, 81, 300, -300])
        codes = kernels.encode_minifloat(outliers / np.float32(4), "abfloat_e2m1", rounding="up")
        snapped = 4 * kernels.decode_minifloat(codes, "abfloat_e2m1")
    np.testing.assert_array_equal(four * 4, [12, 16, 24, 32, 48, 64, 96])
    np.testing.assert_array_equal(four * 8, [24, 32, 48, 64, 96, 128, 192])
    assert (eight[0], eight[-1], len(np.unique(eight))) == (33, 504, 127)
    assert (paper[0], paper[-1], len(np.unique(paper))) == (9, 15 * 2**15, 127)
    np.testing.assert_array_equal(snapped, [12, 16, 24, -16, 96, 96, -96])


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(errors.UnknownNameError):
        kernels.decode_minifloat(np.zeros(3, np.uint8), "e3m3")
    with pytest.raises(errors.DtypeError):
        kernels.decode_minifloat(np.zeros(3, np.uint8), "bf16")
    with pytest.raises(errors.DtypeError):
        kernels.decode_minifloat(np.zeros(3, np.uint16), "e4m3fn")
