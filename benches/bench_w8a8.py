"""w8a8 beside torch: the same codes as floats, and torch's own integer product with the same scaling behind it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.w8a8 import large

from subbyte import kernels

CASES = [large(rows, 4096, 4096) for rows in (1, 16, 128, 512)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.w8a8(*case.args)


def float_matmul(case: Case) -> Any:
    x, weight = (torch.tensor(codes).float() for codes in case.args[:2])
    return lambda: x @ weight.T


def int_mm(case: Case) -> Any:
    x, weight, x_scale, w_scale = map(torch.tensor, case.args[:4])
    return lambda: torch._int_mm(x, weight.T).float() * x_scale[:, None] * w_scale


@pytest.mark.parametrize("who", [subbyte, float_matmul, int_mm])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_w8a8(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"w8a8 {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops, limit="read sgemm")
    benchmark(who(case))
