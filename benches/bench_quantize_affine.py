"""Rounding to a grid beside torch: `pytest benches/bench_quantize_affine.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.quantize_affine import large

from subbyte import kernels


def quantize_affine_torch(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, bits: int, group: int) -> torch.Tensor:
    values, s, z = torch.from_numpy(x), torch.from_numpy(scale), torch.from_numpy(zero)
    steps = torch.round(values.view(len(x), -1, group) / s.unsqueeze(-1))
    return torch.clamp(steps + z.unsqueeze(-1), 0, 2**bits - 1).to(torch.uint8)


CONTESTANTS = {"subbyte": kernels.quantize_affine, "torch": quantize_affine_torch}
CASES = [large(64, 4096, 128), large(4096, 4096, 32), large(4096, 4096, 128), large(4096, 4096, 4096)]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_quantize_affine(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"quantize_affine {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
