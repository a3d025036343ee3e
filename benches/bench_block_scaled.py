"""block_scaled beside torch: the weight decoded by `dequantize_block`, then multiplied."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.block_scaled import large
from tests.oracles.case import Case
from tests.oracles.dequantize_block import ELEMENTS

from subbyte import kernels

FORMATS = (("e2m1", 32, "e8m0"), ("e4m3fn", 32, "e8m0"), ("e2m1", 16, "e4m3fn"))
CASES = [large(rows, 4096, 4096, *format) for format in FORMATS for rows in (1, 16)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.block_scaled(*case.args, **case.kwargs)


def decode_then_matmul(case: Case) -> Any:
    x, words, scale = map(torch.from_numpy, case.args)

    def run() -> torch.Tensor:
        codes = kernels.unpack(words, bits=ELEMENTS[case.kwargs["element"]], cols=x.shape[1])
        return x @ kernels.dequantize_block(codes, scale, **case.kwargs).T

    return run


@pytest.mark.parametrize("who", [subbyte, decode_then_matmul])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_block_scaled(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"block_scaled {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops, limit="read sgemm")
    benchmark(who(case))
