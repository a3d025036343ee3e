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
    return torch.from_numpy(kernels.hadamard(np.eye(n, dtype=np.float32))).T.contiguous()


def by_matrix(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x) @ matrix(x.shape[-1]).T


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
    *(large(rows, n) for rows, n in ((1, 11008), (256, 11008), (256, 14336))),
]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_hadamard(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    n = case.args[0].shape[-1]
    if who == "torch matrix" and n > 11008:
        pytest.skip("the matrix takes GiB")
    if who == "torch butterflies" and n.bit_count() > 1:
        pytest.skip("butterflies alone are for powers of two")
    benchmark.group = f"hadamard {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)  # with K * 2^t, those of the dense K x K factor
    np.testing.assert_allclose(CONTESTANTS[who](case.args[0][:2]), kernels.hadamard(case.args[0][:2]), atol=case.bound)
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
