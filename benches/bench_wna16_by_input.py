"""wna16_by_input beside wna16 on the same codes, and beside torch: the weight decoded, then multiplied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.wna16_by_input import case

from benches.bench_wna16 import decode
from subbyte import kernels

CASES = [case(rows, 4096, 4096, bits, 128, "", check=False) for bits in (3, 4) for rows in (1, 16, 128)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.wna16_by_input(*case.args, **case.kwargs)


def wna16(case: Case) -> Any:
    x, words, scale, _ = case.args
    turned = scale.reshape(len(words), -1).copy()  # as many scales, those of rows
    return lambda: kernels.wna16(x, words, turned, None, **case.kwargs)


def decode_then_matmul(case: Case) -> Any:
    x, words, scale = map(torch.tensor, case.args[:3])
    bits, group = case.kwargs["bits"], case.kwargs["group"]
    ones = torch.ones(len(words), 1)

    def run() -> torch.Tensor:
        centred = decode(words, ones, bits, x.shape[1], x.shape[1]).reshape(-1, group, x.shape[1])
        return x @ (centred * scale[:, None]).reshape(len(words), -1).T

    return run


@pytest.mark.parametrize("who", [subbyte, wna16, decode_then_matmul])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_wna16_by_input(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"wna16_by_input {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops, limit="read sgemm")
    benchmark(who(case))
