"""inverse_factor beside the way it is usually written in torch: factor, inverse, factor of the inverse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.inverse_factor import large

from subbyte import kernels

CASES = [large(512), large(2048)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.inverse_factor(*case.args)


def plain_torch(case: Case) -> Any:
    hessian, damp = torch.tensor(case.args[0]), case.args[1]

    def run() -> torch.Tensor:
        damped = hessian + damp * torch.eye(len(hessian))
        return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)

    return run


@pytest.mark.parametrize("who", [subbyte, plain_torch])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_inverse_factor(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"inverse_factor {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
