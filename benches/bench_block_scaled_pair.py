"""block_scaled_pair beside torch: both operands decoded by `dequantize_block`, then multiplied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.block_scaled_pair import large
from tests.oracles.case import Case
from tests.oracles.dequantize_block import ELEMENTS

from subbyte import kernels

FORMATS = (("e2m1", 16, "e4m3fn"), ("e4m3fn", 32, "e8m0"))
CASES = [large(rows, 4096, 4096, *format) for format in FORMATS for rows in (1, 16)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.block_scaled_pair(*case.args, **case.kwargs)


def decode_then_matmul(case: Case) -> Any:
    x, words, x_scale, w_scale = map(torch.from_numpy, case.args)
    bits, cols = ELEMENTS[case.kwargs["element"]], x_scale.shape[1] * case.kwargs["block"]

    def decoded(words: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return kernels.dequantize_block(kernels.unpack(words, bits=bits, cols=cols), scale, **case.kwargs)

    return lambda: decoded(x, x_scale) @ decoded(words, w_scale).T


@pytest.mark.parametrize("who", [subbyte, decode_then_matmul])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_block_scaled_pair(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"block_scaled_pair {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops, limit="read sgemm")
    benchmark(who(case))
