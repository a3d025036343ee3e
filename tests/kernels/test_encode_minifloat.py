from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import FORMATS, code_dtype
from tests.oracles.encode_minifloat import ROUNDINGS, cases, hard

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
    for rounding in ROUNDINGS:
        with kernels.forced(path):
            values = kernels.decode_minifloat(codes, format)
            back = kernels.encode_minifloat(values, format, saturate=False, rounding=rounding)
        kept = ~np.isnan(values)
        if format.startswith("abfloat"):  # the code 0, of either sign, is none of its numbers
            kept &= codes & len(codes) // 2 - 1 != 0
        np.testing.assert_array_equal(back[kept], codes[kept])


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_threads_change_nothing(rounding: str) -> None:
    x = np.random.default_rng(0).standard_normal(300_001, np.float32)
    with kernels.forced("scalar", 1):
        alone = kernels.encode_minifloat(x, "e4m3fn", rounding=rounding)
    for threads in (2, 5):
        with kernels.forced(kernels.paths()[-1], threads):
            np.testing.assert_array_equal(kernels.encode_minifloat(x, "e4m3fn", rounding=rounding), alone)


@every_path
def test_bf16_is_cast_as_the_f32_that_it_is(path: str) -> None:
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    with kernels.forced(path):
        for format, rounding in (("e4m3fn", "even"), ("f16", "zero"), ("abfloat_e4m3", "stochastic")):
            got = kernels.encode_minifloat(x, format, rounding=rounding)
            assert torch.equal(got, kernels.encode_minifloat(x.float(), format, rounding=rounding))


@every_path
@pytest.mark.parametrize("format", ["e2m1", "e4m3fn", "bf16", "abfloat_e2m5"])
def test_stochastic_rounding_has_the_right_mean_and_others_are_monotone(format: str, path: str) -> None:
    x = np.repeat(np.float32([33.3, 40.9, 51.2, 60.01]), 1 << 14)
    x = x / np.float32(16) if format == "e2m1" else x  # within its range
    with kernels.forced(path):
        codes = [kernels.encode_minifloat(x, format, rounding="stochastic", seed=seed) for seed in range(4)]
        back = np.stack([kernels.decode_minifloat(code, format) for code in codes]).reshape(4, 4, -1)
        rising = np.sort(np.random.default_rng(1).standard_normal(4096).astype(np.float32)) * np.float32(20)
        for rounding in ROUNDINGS[:-1]:
            values = kernels.decode_minifloat(kernels.encode_minifloat(rising, format, rounding=rounding), format)
            assert (np.diff(values) >= 0).all()
    steps = back.max((0, 2)) - back.min((0, 2))
    # the mean of 2^16 draws is off by 5 of its standard errors at most
    assert (np.abs(back.mean((0, 2)) - x[:: 1 << 14]) <= 5 * steps / 2 / 256).all()
    assert not (codes[0] == codes[1]).all()


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(errors.UnknownNameError):
        kernels.encode_minifloat(np.zeros(3, np.float32), "e3m3")
    with pytest.raises(errors.UnknownNameError, match="rounding"):
        kernels.encode_minifloat(np.zeros(3, np.float32), "e4m3fn", rounding="nearest")
    with pytest.raises(errors.RangeError, match="seed"):
        kernels.encode_minifloat(np.zeros(3, np.float32), "e4m3fn", rounding="stochastic", seed=-1)
    with pytest.raises(errors.DtypeError):
        kernels.encode_minifloat(np.zeros(3, np.float64), "e4m3fn")
