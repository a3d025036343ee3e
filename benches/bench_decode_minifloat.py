"""Casts from narrow floats beside those of torch and ml_dtypes: `pytest benches/bench_decode_minifloat.py`."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import large

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
CONTESTANTS = {
    "subbyte": kernels.decode_minifloat,
    "torch": lambda codes, format: torch.from_numpy(codes).view(TORCH[format]).float(),
    "ml_dtypes": lambda codes, format: codes.view(ML_DTYPES[format]).astype(np.float32),
}


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", large((64, 4096)) + large((4096, 4096)), ids=str)
def bench_decode_minifloat(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    if case.kwargs["format"] not in {"torch": TORCH, "ml_dtypes": ML_DTYPES}.get(who, case.kwargs["format"]):
        pytest.skip(f"{who} has no such cast")
    benchmark.group, benchmark.extra_info["bytes"] = f"decode_minifloat {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
