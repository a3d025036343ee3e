"""RMSNorm and dynamic 8-bit activations beside torch, one after the other: `pytest benches/bench_norm_quantize.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.norm_quantize import large

from benches.bench_quantize_tokens import quantize_tokens_torch
from subbyte import kernels


def norm_quantize_torch(x: np.ndarray, weight: np.ndarray, _: None, **__: object) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.nn.functional.rms_norm(torch.from_numpy(x), weight.shape, torch.from_numpy(weight), 1e-5)
    return quantize_tokens_torch(y.numpy())


def two_steps(x: np.ndarray, weight: np.ndarray, _: None, **__: object) -> tuple[np.ndarray, np.ndarray]:
    """The norm by torch, the quantization by ours: what fusing them is to beat."""
    y = torch.nn.functional.rms_norm(torch.from_numpy(x), weight.shape, torch.from_numpy(weight), 1e-5)
    return kernels.quantize_tokens(y.numpy())


CONTESTANTS = {"subbyte": kernels.norm_quantize, "torch": norm_quantize_torch, "torch norm, then ours": two_steps}
CASES = [large(1, 4096), large(16, 4096), large(512, 4096), large(4096, 4096)]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_norm_quantize(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"norm_quantize {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
