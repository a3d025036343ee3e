"""The values of codes beside torch: `pytest benches/bench_dequantize_affine.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.dequantize_affine import large

from subbyte import kernels


def dequantize_affine_torch(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray, group: int) -> torch.Tensor:
    c, s, z = torch.from_numpy(codes), torch.from_numpy(scale), torch.from_numpy(zero)
    return (c.view(len(c), -1, group).float() - z.unsqueeze(-1)).mul_(s.unsqueeze(-1))


CONTESTANTS = {"subbyte": kernels.dequantize_affine, "torch": dequantize_affine_torch}
CASES = [large(64, 4096, 128), large(4096, 4096, 32), large(4096, 4096, 128), large(4096, 4096, 4096)]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_dequantize_affine(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"dequantize_affine {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
