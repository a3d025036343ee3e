"""fp8_grouped beside torch: the same matrices as floats, one product for each expert that has rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.fp8_grouped import large

from subbyte import kernels

CASES = [large(tokens, experts=8, chosen=2, cols=1024, depth=1024) for tokens in (1, 16)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.fp8_grouped(*case.args, **case.kwargs)


def float_matmuls(case: Case) -> Any:
    x, weight = (torch.from_numpy(codes).view(torch.float8_e4m3fn).float() for codes in case.args[:2])
    bounds, rows = case.args[4].tolist(), torch.from_numpy(case.kwargs["rows"])

    def run() -> torch.Tensor:
        parts = [x[rows[first:last]] @ weight[e].T for e, (first, last) in enumerate(pairwise(bounds)) if first < last]
        return torch.cat(parts)

    return run


@pytest.mark.parametrize("who", [subbyte, float_matmuls])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_fp8_grouped(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"fp8_grouped {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
