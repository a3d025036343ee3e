"""lookup beside wna16 on the same codes, beside a table of bits by torch: the weight decoded, then multiplied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.lookup import case

from benches.bench_wna16 import decode
from subbyte import kernels

CASES = [
    *(case(rows, 4096, 4096, bits, 128, False, check=False) for bits in (3, 4, 5, 8) for rows in (1, 16, 128)),
    *(case(rows, 4096, 4096, 4, 4096, by_row, check=False) for by_row in (False, True) for rows in (1, 16)),
]


def subbyte(case: Case) -> Any:
    return lambda: kernels.lookup(*case.args, **case.kwargs)


def wna16(case: Case) -> Any:
    x, words, scale, table = case.args
    bits = table.shape[1].bit_length() - 1
    return lambda: kernels.wna16(x, words, scale, None, bits, **case.kwargs)


def decode_then_matmul(case: Case) -> Any:
    x, words, scale, table = map(torch.tensor, case.args)
    bits = table.shape[1].bit_length() - 1
    ones, rows = torch.ones(len(words), 1), torch.arange(len(words))[:, None] if len(table) > 1 else torch.tensor(0)

    def run() -> torch.Tensor:
        codes = (decode(words, ones, bits, x.shape[1], x.shape[1]) + 2 ** (bits - 1)).int()
        values = table[rows, codes].reshape(len(words), -1, case.kwargs["group"])
        return x @ (values * scale[:, :, None]).reshape(len(words), -1).T

    return run


def dequantize_then_matmul(case: Case) -> Any:
    x, words, scale, table = case.args
    bits = table.shape[1].bit_length() - 1

    def run() -> np.ndarray:
        codes = kernels.unpack(words, bits, x.shape[1])
        weight: np.ndarray = kernels.dequantize_table(codes, scale, table, **case.kwargs)
        return x @ weight.T

    return run


@pytest.mark.parametrize("who", [subbyte, wna16, decode_then_matmul, dequantize_then_matmul])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_lookup(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"lookup {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops, limit="read sgemm")
    benchmark(who(case))
