"""wna16_grouped beside torch: each expert that has rows decoded, then multiplied."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.wna16_grouped import large

from benches.bench_wna16 import decode
from subbyte import kernels

CASES = [large(tokens, experts=8, chosen=2, cols=2048, depth=2048) for tokens in (1, 16, 128)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.wna16_grouped(*case.args, **case.kwargs)


def decode_then_matmul(case: Case) -> Any:
    x, words, scale, offsets = (torch.from_numpy(each) for each in case.args if each is not None)
    bits, group, rows = case.kwargs["bits"], case.kwargs["group"], torch.from_numpy(case.kwargs["rows"])

    def run() -> torch.Tensor:
        parts = [
            x[rows[first:last]] @ decode(words[e], scale[e], bits, group, x.shape[1]).T
            for e, (first, last) in enumerate(pairwise(offsets.tolist()))
            if first < last
        ]
        return torch.cat(parts)

    return run


@pytest.mark.parametrize("who", [subbyte, decode_then_matmul])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_wna16_grouped(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"wna16_grouped {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops, limit="read sgemm")
    benchmark(who(case))
