"""coordinate_descent beside QuantEase's fast form in torch: `pytest benches/bench_coordinate_descent.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.coordinate_descent import large

from subbyte import kernels

CASES = [large(512, 512, 3, 6), large(1024, 1024, 3, 6)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.coordinate_descent(*case.args, **case.kwargs)


def plain_torch(case: Case) -> Any:
    weight, hessian, scale, zero, _ = map(torch.tensor, case.args)
    return lambda: descend(weight, hessian, scale, zero, case.kwargs["bits"], case.kwargs["sweeps"])


def descend(
    weight: torch.Tensor, hessian: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, sweeps: int
) -> torch.Tensor:
    """The paper's fast form: one product a sweep, one matrix-vector product a column; one group a row."""
    ratio = hessian / hessian.diagonal()
    target = weight @ ratio
    ratio.fill_diagonal_(0)
    now = weight.clone()
    for sweep in range(sweeps):
        before, moved = now.clone(), torch.zeros_like(now)
        rest = target - now @ ratio
        for j in range(weight.shape[1]):
            best = rest[:, j] + moved[:, :j] @ ratio[:j, j]
            if not (sweep % 3 == 1 and sweep < sweeps - 4):
                codes = (torch.round(best / scale[:, 0]) + zero[:, 0]).clamp_(0, 2**bits - 1)
                best = scale[:, 0] * (codes - zero[:, 0])
            now[:, j] = best
            moved[:, j] = before[:, j] - best
    return now


@pytest.mark.parametrize("who", [subbyte, plain_torch])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_coordinate_descent(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"coordinate_descent {case}"
    benchmark.extra_info.update(flops=case.flops)
    benchmark(who(case))
