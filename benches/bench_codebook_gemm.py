"""codebook_gemm beside torch, which multiplies a weight that was decoded before, and beside wna16 of as many
bits (of two bits, where codewords are stored)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.codebook_gemm import large, large_table

from subbyte import kernels

CASES = [large(rows, 4096, 4096, bits) for bits in (2, 3, 4) for rows in (1, 16, 128)]
CASES += [
    large_table(rows, 4096, 4096, dim, counts)
    for dim, counts in ((4, (256, 0)), (6, (4096, 0)), (8, (65536, 0)), (12, (4096, 4096)), (8, (65536, 256)))
    for rows in (1, 4, 16, 128)
]


def subbyte(case: Case) -> Any:
    return lambda: kernels.codebook_gemm(*case.args, **case.kwargs)


def matmul_alone(case: Case) -> Any:
    x = torch.from_numpy(case.args[0])
    one = np.eye(x.shape[1], dtype=np.float32)
    weight = torch.from_numpy(kernels.codebook_gemm(one, case.args[1], **case.kwargs)).T.contiguous()
    return lambda: x @ weight.T


def wna16(case: Case) -> Any:
    x, depth = case.args[0], case.args[0].shape[1]
    rows, bits = case.kwargs.get("outputs", len(case.args[1])), case.kwargs.get("bits", 2)
    words = np.full((rows, depth * bits // 32), 0x2D1B4E87, np.int32)
    scale = np.full((rows, depth // 128), 0.01, np.float32)
    return lambda: kernels.wna16(x, words, scale, None, bits, group=128)


@pytest.mark.parametrize("who", [subbyte, matmul_alone, wna16])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_codebook_gemm(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"codebook_gemm {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops, limit="read sgemm")
    benchmark(who(case))
