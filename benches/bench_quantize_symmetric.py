"""Rounding to signed codes beside torch: `pytest benches/bench_quantize_symmetric.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.quantize_symmetric import large

from subbyte import kernels


def quantize_symmetric_torch(x: np.ndarray, scale: np.ndarray, group: int) -> torch.Tensor:
    steps = torch.round(torch.from_numpy(x).view(len(x), -1, group) / torch.from_numpy(scale).unsqueeze(-1))
    return torch.clamp(steps, -127, 127).to(torch.int8)


CONTESTANTS = {"subbyte": kernels.quantize_symmetric, "torch": quantize_symmetric_torch}
CASES = [large(64, 4096, 4096), large(4096, 4096, 128), large(4096, 4096, 4096)]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_quantize_symmetric(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"quantize_symmetric {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
