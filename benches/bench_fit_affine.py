"""Fitting grids, with and without GPTQ's search, beside torch: `pytest benches/bench_fit_affine.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.fit_affine import large

from subbyte import kernels


def fit_affine_torch(
    x: np.ndarray,
    bits: int,
    group: int,
    symmetric: bool,
    norm: float = 2.4,
    shrink_grid: int = 100,
    shrink_steps: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The asymmetric grid."""
    assert not symmetric
    values, top = torch.from_numpy(x).view(len(x), -1, group), 2**bits - 1
    lo, hi = values.amin(-1, keepdim=True).clamp(max=0), values.amax(-1, keepdim=True).clamp(min=0)
    best_scale = (hi - lo) / top
    best_zero = torch.round(-lo / best_scale)
    least = torch.full_like(lo, torch.inf)
    for i in range(shrink_steps):
        p = 1 - i / shrink_grid
        scale = p * (hi - lo) / top
        zero = torch.round(-p * lo / scale)
        rounded = scale * (torch.clamp(torch.round(values / scale) + zero, 0, top) - zero)
        error = rounded.sub_(values).abs_().pow_(norm).sum(-1, keepdim=True)
        better = error < least
        least, best_scale = torch.where(better, error, least), torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero, best_zero)
    return best_scale, best_zero.to(torch.uint8)


CONTESTANTS = {"subbyte": kernels.fit_affine, "torch": fit_affine_torch}
CASES = [
    large(64, 4096, 128),
    large(4096, 4096, 32),
    large(4096, 4096, 128),
    large(4096, 4096, 4096),
    large(64, 4096, 128, shrink_steps=80),
    large(64, 4096, 128, shrink_steps=80, norm=2.0),
    large(64, 4096, 4096, shrink_steps=80),
]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_fit_affine(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"fit_affine {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
