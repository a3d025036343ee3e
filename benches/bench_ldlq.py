"""ldlq beside the same algorithm in torch, blocked by 128 columns: `pytest benches/bench_ldlq.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.ldlq import large

from subbyte import kernels

CASES = [*(large(n, n, 2, "integers") for n in (512, 1024)), large(512, 512, 2, "e8p")]


def subbyte(case: Case) -> Any:
    return lambda: kernels.ldlq(*case.args, **case.kwargs)


def plain_torch(case: Case) -> Any:
    weight, hessian = map(torch.from_numpy, case.args)
    top = 2 ** case.kwargs["bits"] - 1
    if case.kwargs["codewords"] != "integers":
        pytest.skip("torch has no lattice codebook")

    def run() -> torch.Tensor:
        lower = torch.linalg.cholesky(hessian)
        lower = lower / lower.diagonal()
        now, values = weight.clone(), torch.zeros_like(weight)
        for start in range(len(lower) - 128, -1, -128):
            for j in range(start + 127, start - 1, -1):
                values[:, j] = torch.clamp(torch.floor(now[:, j] + 0.5), 0, top)
                error = (weight[:, j] - values[:, j])[:, None]
                now[:, start:j] += error * lower[j, start:j]
            done = slice(start, start + 128)
            now[:, :start] += (weight[:, done] - values[:, done]) @ lower[done, :start]
        return values

    return run


@pytest.mark.parametrize("who", [subbyte, plain_torch])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_ldlq(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"ldlq {case}"
    benchmark.extra_info.update(flops=case.flops, limit="sgemm")
    benchmark(who(case))
