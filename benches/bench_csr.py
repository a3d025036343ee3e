"""csr beside torch.sparse, which has no 16-bit indices or values, and beside the dense product before it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.csr import large

from subbyte import kernels

CASES = [large(rows, 4096, 4096) for rows in (1, 4, 16, 256)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.csr(*case.args)


def torch_sparse(case: Case) -> Any:
    x, values, columns, pointers, base = case.args
    shape = (len(pointers) - 1, x.shape[1])
    indices = torch.from_numpy(columns.astype("int32"))
    sparse = torch.sparse_csr_tensor(torch.from_numpy(pointers), indices, torch.from_numpy(values).float(), shape)
    across, below = torch.from_numpy(x).T.contiguous(), torch.from_numpy(base).T.contiguous()
    return lambda: torch.addmm(below, sparse, across)


def four_bit_product(case: Case) -> Any:
    x, cols = case.args[0], len(case.args[3]) - 1
    words = torch.zeros(cols, x.shape[1] // 8, dtype=torch.int32)
    scale = torch.ones(cols, x.shape[1] // 128)
    x = torch.from_numpy(x)
    return lambda: kernels.wna16(x, words, scale, None, bits=4, group=128)


@pytest.mark.parametrize("who", [subbyte, torch_sparse, four_bit_product])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_csr(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"csr {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
