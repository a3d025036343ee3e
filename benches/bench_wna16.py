"""wna16 beside torch: decoding the weight and multiplying, and multiplying a weight that was decoded before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.wna16 import large

from subbyte import kernels

CASES = [large(rows, 4096, 4096, bits, 128) for bits in (2, 3, 4, 8) for rows in (1, 16, 256)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.wna16(*case.args, **case.kwargs)


def decode_then_matmul(case: Case) -> Any:
    x, words, scale = map(torch.tensor, case.args[:3])
    bits, group = case.kwargs["bits"], case.kwargs["group"]
    return lambda: x @ decode(words, scale, bits, group, x.shape[1]).T


def matmul_alone(case: Case) -> Any:
    x, words, scale = map(torch.tensor, case.args[:3])
    weight = decode(words, scale, case.kwargs["bits"], case.kwargs["group"], x.shape[1])
    return lambda: x @ weight.T


def decode(words: torch.Tensor, scale: torch.Tensor, bits: int, group: int, columns: int) -> torch.Tensor:
    """[N, K] f32 from a dense bit stream."""
    if 32 % bits == 0:
        codes = words[:, :, None] >> torch.arange(0, 32, bits, dtype=torch.int32) & (1 << bits) - 1
    else:
        first = torch.arange(0, columns * bits, bits)
        wide = torch.nn.functional.pad(words.long() & 0xFFFFFFFF, (0, 1))
        codes = (wide[:, first // 32] | wide[:, first // 32 + 1] << 32) >> first % 32 & (1 << bits) - 1
    grouped = codes.reshape(len(words), -1, group).float() - 2 ** (bits - 1)
    return (scale[:, :, None] * grouped).reshape(len(words), columns)


@pytest.mark.parametrize("who", [subbyte, decode_then_matmul, matmul_alone])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_wna16(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"wna16 {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
