"""The values of codes of a table beside torch: `pytest benches/bench_dequantize_table.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.dequantize_table import large

from subbyte import kernels


def dequantize_table_torch(codes: np.ndarray, scale: np.ndarray, table: np.ndarray, group: int) -> torch.Tensor:
    c, s, t = torch.from_numpy(codes), torch.from_numpy(scale), torch.from_numpy(table[0])
    return t[c.int()].view(len(c), -1, group).mul_(s.unsqueeze(-1))


CONTESTANTS = {"subbyte": kernels.dequantize_table, "torch": dequantize_table_torch}
CASES = [large(64, 4096, 128, 4), *(large(4096, 4096, 128, bits) for bits in (3, 4, 8))]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_dequantize_table(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"dequantize_table {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
