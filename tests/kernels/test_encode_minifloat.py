from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import FORMATS, code_dtype
from tests.oracles.encode_minifloat import cases, hard

from subbyte import errors, kernels

every_path = pytest.mark.parametrize("path", kernels.paths())


@every_path
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.encode_minifloat(*case.args, **case.kwargs))


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
    sample = (np.arange(1 << 20, dtype=np.uint32) << 12 | 0x800).view(np.float32)
    x = np.concatenate([hard(format), sample])
    x = x[~np.isnan(x)]
    if format == "e8m0":  # of what is not above zero ml_dtypes makes NaN, and of subnormals not the nearest
        x = x[x >= np.finfo(np.float32).tiny]
    with kernels.forced(path), np.errstate(over="ignore"):
        got = kernels.encode_minifloat(x, format, saturate=False)
        np.testing.assert_array_equal(got, x.astype(peer).view(got.dtype))


@every_path
@pytest.mark.parametrize("format", list(FORMATS))
def test_a_value_of_the_format_is_kept(format: str, path: str) -> None:
    codes = np.arange(2 << min(sum(FORMATS[format][:2]), 7 if format == "e8m0" else 15)).astype(code_dtype(format))
    with kernels.forced(path):
        values = kernels.decode_minifloat(codes, format)
        back = kernels.encode_minifloat(values, format, saturate=False)
    np.testing.assert_array_equal(back[~np.isnan(values)], codes[~np.isnan(values)])


def test_threads_change_nothing() -> None:
    x = np.random.default_rng(0).standard_normal(300_001, np.float32)
    with kernels.forced("scalar", 1):
        alone = kernels.encode_minifloat(x, "e4m3fn")
    for threads in (2, 5):
        with kernels.forced(kernels.paths()[-1], threads):
            np.testing.assert_array_equal(kernels.encode_minifloat(x, "e4m3fn"), alone)


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(errors.UnknownNameError):
        kernels.encode_minifloat(np.zeros(3, np.float32), "e3m3")
    with pytest.raises(errors.DtypeError):
        kernels.encode_minifloat(np.zeros(3, np.float64), "e4m3fn")
