"""A rotation and dynamic 8-bit activations, fused and apart: `pytest benches/bench_hadamard_quantize.py`."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.hadamard_quantize import large

from subbyte import kernels


def two_steps(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return kernels.quantize_tokens(kernels.hadamard(x))


CONTESTANTS = {"subbyte": kernels.hadamard_quantize, "two kernels": two_steps}
CASES = [large(1, 4096), large(16, 4096), large(2048, 4096), large(256, 11008)]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_hadamard_quantize(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"hadamard_quantize {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
