"""Block formats back to f32 beside the same in torch operations: `pytest benches/bench_dequantize_block.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.dequantize_block import ELEMENTS, large, value

from subbyte import kernels


def torch_dequantize(codes: np.ndarray, scale: np.ndarray, element: str, block: int, scale_dtype: str) -> torch.Tensor:
    """By a table of the values."""
    table = torch.tensor([value(code, element) for code in range(1 << ELEMENTS[element])])
    numbers = torch.from_numpy(codes).int()
    kind = torch.float8_e8m0fnu if scale_dtype == "e8m0" else torch.float8_e4m3fn
    scales = torch.from_numpy(scale).view(kind).float()
    return (table[numbers].reshape(-1, block) * scales.reshape(-1, 1)).reshape(codes.shape)


CONTESTANTS = {"subbyte": kernels.dequantize_block, "torch": torch_dequantize}


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", large((64, 4096)) + large((4096, 4096)), ids=str)
def bench_dequantize_block(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"dequantize_block {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
