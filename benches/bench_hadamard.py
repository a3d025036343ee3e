"""The Walsh-Hadamard transform beside torch, by its matrix and by butterflies: `pytest benches/bench_hadamard.py`."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.hadamard import large

from subbyte import kernels


@cache
def matrix(n: int) -> torch.Tensor:
    h = torch.ones(1, 1)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h / n**0.5


def by_matrix(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x) @ matrix(x.shape[-1])


def by_butterflies(x: np.ndarray) -> torch.Tensor:
    y, n, distance = torch.from_numpy(x), x.shape[-1], 1
    while distance < n:
        y = y.view(-1, n // (2 * distance), 2, distance)
        y = torch.stack([y[:, :, 0] + y[:, :, 1], y[:, :, 0] - y[:, :, 1]], 2)
        distance *= 2
    return y.view(x.shape) / n**0.5


CONTESTANTS = {"subbyte": kernels.hadamard, "torch matrix": by_matrix, "torch butterflies": by_butterflies}
CASES = [
    *(large(rows, n) for rows, n in ((4096, 64), (2048, 128), (256, 1024), (64, 4096))),
    *(large(rows, n) for rows, n in ((32768, 128), (1024, 4096), (512, 32768))),
]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_hadamard(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    if who == "torch matrix" and case.args[0].shape[-1] > 4096:
        pytest.skip("the matrix takes 4 GiB")
    benchmark.group, benchmark.extra_info["bytes"] = f"hadamard {case}", case.bytes
    np.testing.assert_allclose(CONTESTANTS[who](case.args[0][:2]), kernels.hadamard(case.args[0][:2]), atol=case.bound)
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
