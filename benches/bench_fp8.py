"""fp8 beside torch: the same matrices as floats, which is what a CPU without 8-bit floats multiplies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.fp8 import large

from subbyte import kernels

CASES = [large(rows, size, size) for size in (1024, 4096) for rows in (1, 16, 128)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.fp8(*case.args)


def float_matmul(case: Case) -> Any:
    x, weight = (torch.tensor(codes).view(torch.float8_e4m3fn).float() for codes in case.args[:2])
    return lambda: x @ weight.T


@pytest.mark.parametrize("who", [subbyte, float_matmul])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_fp8(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"fp8 {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
