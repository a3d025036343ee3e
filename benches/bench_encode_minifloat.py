"""Casts to narrow floats beside those of torch and ml_dtypes: `pytest benches/bench_encode_minifloat.py`."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.encode_minifloat import large

from subbyte import kernels

TORCH = {
    "e4m3fn": torch.float8_e4m3fn,
    "e5m2": torch.float8_e5m2,
    "e8m0": torch.float8_e8m0fnu,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
}
ML_DTYPES = {
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e8m0": ml_dtypes.float8_e8m0fnu,
    "bf16": ml_dtypes.bfloat16,
    "f16": np.float16,
}


def torch_cast(x: np.ndarray, format: str, saturate: bool, rounding: str) -> torch.Tensor:
    """Its cast; what is not rounded to nearest, on the bits of the f32: as many as fall away, cleared or random."""
    given = torch.from_numpy(x)
    if rounding == "even":
        return given.to(TORCH[format])
    bits, drop = given.view(torch.int32), 16 if format == "bf16" else 20
    if rounding == "stochastic":
        bits = bits + torch.randint_like(bits, 1 << drop)
    return (bits & -(1 << drop)).view(torch.float32).to(TORCH[format])


CONTESTANTS = {
    "subbyte": kernels.encode_minifloat,
    "torch": torch_cast,
    "ml_dtypes": lambda x, format, saturate, rounding: x.astype(ML_DTYPES[format]),
}


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", large((64, 4096)) + large((4096, 4096)), ids=str)
def bench_encode_minifloat(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    format, rounding = case.kwargs["format"], case.kwargs["rounding"]
    if who == "torch" and format not in TORCH:
        pytest.skip("torch has no such cast")
    if who == "ml_dtypes" and (format not in ML_DTYPES or rounding != "even"):
        pytest.skip("ml_dtypes has no such cast")
    benchmark.group, benchmark.extra_info["bytes"] = f"encode_minifloat {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
