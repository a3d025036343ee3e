"""accumulate_gram beside `gram += x.T @ x` in torch, which computes both triangles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.accumulate_gram import large
from tests.oracles.case import Case

from subbyte import kernels

CASES = [large(2048, 1024), large(256, 4096)]


def subbyte(case: Case) -> Any:
    gram, x = case.args
    gram = gram.copy()
    return lambda: kernels.accumulate_gram(gram, x)


def plain_torch(case: Case) -> Any:
    gram, x = map(torch.tensor, case.args)
    return lambda: gram.addmm_(x.T, x)


@pytest.mark.parametrize("who", [subbyte, plain_torch])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_accumulate_gram(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"accumulate_gram {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
