"""gptq beside the paper's algorithm written plainly in torch: a Python loop over columns, all rows at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.gptq import large

from subbyte import kernels

CASES = [large(1024, 1024, bits=4, group=128), large(4096, 512, bits=4, group=128)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.gptq(*case.args, **case.kwargs)


def plain_torch(case: Case) -> Any:
    weight, factor = map(torch.tensor, case.args)
    bits, group = case.kwargs["bits"], case.kwargs["group"]
    return lambda: column_loop(weight.clone(), factor, bits, group)


def column_loop(weight: torch.Tensor, factor: torch.Tensor, bits: int, group: int, block: int = 128) -> torch.Tensor:
    """The codes, by blocks of columns, symmetric grids."""
    columns, top, middle = weight.shape[1], 2**bits - 1, 2 ** (bits - 1)
    codes = torch.empty_like(weight)
    scale = torch.ones(len(weight))
    for start in range(0, columns, block):
        end = min(start + block, columns)
        part, errors = weight[:, start:end].clone(), torch.zeros(len(weight), end - start)
        for j in range(start, end):
            if j % group == 0:
                scale = 2 * weight[:, j : j + group].abs().amax(1) / top
            now = part[:, j - start]
            codes[:, j] = (torch.round(now / scale) + middle).clamp_(0, top)
            error = (now - scale * (codes[:, j] - middle)) / factor[j, j]
            part[:, j - start :] -= torch.outer(error, factor[j, j:end])
            errors[:, j - start] = error
        weight[:, end:] -= errors @ factor[start:end, end:]
    return codes


@pytest.mark.parametrize("who", [subbyte, plain_torch])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_gptq(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"gptq {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
