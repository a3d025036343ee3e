"""Rounding to a table beside torch: `pytest benches/bench_quantize_table.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.quantize_table import large

from subbyte import kernels


def quantize_table_torch(x: np.ndarray, scale: np.ndarray, bounds: np.ndarray, group: int) -> torch.Tensor:
    values, s = torch.from_numpy(x), torch.from_numpy(scale)
    steps = values.view(len(x), -1, group) / s.unsqueeze(-1)
    return torch.bucketize(steps, torch.from_numpy(bounds[0]), out_int32=True).to(torch.uint8)


CONTESTANTS = {"subbyte": kernels.quantize_table, "torch": quantize_table_torch}
CASES = [large(64, 4096, 128, 4), *(large(4096, 4096, 128, bits) for bits in (3, 4, 8))]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_quantize_table(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"quantize_table {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
