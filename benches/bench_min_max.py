"""min_max beside swap search in torch, all pairs of two levels at once: `pytest benches/bench_min_max.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.min_max import LEAST, large

from subbyte import kernels

CASES = [large(4, 256, 64, 2), large(4, 512, 128, 3)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.min_max(*case.args, **case.kwargs)


def plain_torch(case: Case) -> Any:
    a, *rows = map(torch.tensor, case.args)
    return lambda: [search(a, *row) for row in zip(*rows, strict=True)]


def search(a: torch.Tensor, b: torch.Tensor, levels: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """One row: the best swap that the squares allow, between two levels after the other, until none helps."""
    codes, gap = codes.clone(), a @ levels[codes.long()] - b
    largest, low, idle = gap.abs().max(), 0, 0
    least = LEAST * largest
    while idle < len(levels) - 1:
        step = levels[low + 1] - levels[low]
        ups, downs = (codes == low).nonzero().squeeze(1), (codes == low + 1).nonzero().squeeze(1)
        up, down = swap(a, gap, step, ups, downs, largest - least)
        if up is None:
            low, idle = (low + 1) % (len(levels) - 1), idle + 1
            continue
        codes[up], codes[down], idle = low + 1, low, 0
        gap += step * (a[:, up] - a[:, down])
        largest = gap.abs().max()
    return codes


def swap(
    a: torch.Tensor, gap: torch.Tensor, step: torch.Tensor, ups: torch.Tensor, downs: torch.Tensor, bound: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
    """The pair whose swap lowers the largest residual most, below `bound`.

    Constraints that no pair brings so far are dropped, then pairs that fail on the 100 largest residuals.
    """
    if not len(ups) or not len(downs):
        return None, None
    reach = step * (a.amax(1) - a.amin(1))
    matters = gap.abs() + reach >= bound
    active = gap.abs().topk(min(100, len(gap))).indices
    after = gap[active, None, None] + step * (a[active][:, ups, None] - a[active][:, None, downs])
    first, second = (after.abs().amax(0) < bound).nonzero(as_tuple=True)
    ups, downs = ups[first], downs[second]
    after = gap[matters, None] + step * (a[matters][:, ups] - a[matters][:, downs])
    good = after.abs().amax(0) < bound
    ups, downs, most = ups[good], downs[good], after.abs().amax(0)[good]
    squares = (gap[:, None] + step * (a[:, ups] - a[:, downs])).square().sum(0)
    most[squares > gap.square().sum()] = torch.inf
    if not (most < bound).any():
        return None, None
    best = most.argmin()
    return ups[best], downs[best]


@pytest.mark.parametrize("who", [subbyte, plain_torch])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_min_max(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"min_max {case}"
    benchmark.extra_info.update(flops=case.flops)
    benchmark(who(case))
