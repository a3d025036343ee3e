"""Dynamic 8-bit activations beside torch: `pytest benches/bench_quantize_tokens.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.quantize_tokens import large

from subbyte import kernels


def quantize_tokens_torch(x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.from_numpy(x)
    scale = values.abs().amax(-1, keepdim=True).clamp(min=1e-5) / 127
    return torch.round(values / scale).to(torch.int8), scale


CONTESTANTS = {"subbyte": kernels.quantize_tokens, "torch": quantize_tokens_torch}
CASES = [large(1, 4096), large(16, 4096), large(512, 4096), large(4096, 4096)]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_quantize_tokens(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"quantize_tokens {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
