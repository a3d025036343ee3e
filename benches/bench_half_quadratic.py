"""half_quadratic beside hqq where it is installed, and beside the same passes in torch.

`pytest benches/bench_half_quadratic.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.half_quadratic import large

from subbyte import kernels

CASES = [large(1024, 1024, 4, 64), large(4096, 4096, 4, 64)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.half_quadratic(*case.args, **case.kwargs)


def hqq(case: Case) -> Any:
    quantizer = pytest.importorskip("hqq.core.quantize").Quantizer
    weight, options = torch.from_numpy(case.args[0]), case.kwargs
    return lambda: quantizer.quantize(
        weight,
        nbits=options["bits"],
        group_size=options["group"],
        axis=1,
        round_zero=options["round_zero"],
        optimize=True,
        compute_dtype=torch.float32,
        device="cpu",
    )


def plain_torch(case: Case) -> Any:
    weight, options = torch.from_numpy(case.args[0]), case.kwargs
    return lambda: passes(weight.view(-1, options["group"]), 2 ** options["bits"] - 1, options["round_zero"])


def passes(weight: torch.Tensor, top: int, round_zero: bool, p: float = 0.7, beta: float = 10.0) -> torch.Tensor:
    """The codes, from the blog's formulas."""
    lo, hi = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    inverse = top / (hi - lo)
    zero, best = -lo * inverse, float("inf")
    zero = zero.round() if round_zero else zero
    for _ in range(20):
        codes = torch.round(weight * inverse + zero).clamp_(0, top)
        error = weight - (codes - zero) / inverse
        mean = float(error.abs().mean())
        shrunk = error.sign() * (error.abs() - error.abs().pow(p - 1) / beta).clamp_min_(0)
        zero = (codes - (weight - shrunk) * inverse).mean(1, keepdim=True)
        if mean >= best:
            break
        best, beta = mean, beta * 1.01
    return torch.round(weight * inverse + zero).clamp_(0, top).to(torch.uint8)


@pytest.mark.parametrize("who", [subbyte, hqq, plain_torch])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_half_quadratic(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"half_quadratic {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
