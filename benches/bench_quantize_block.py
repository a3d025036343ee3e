"""Block formats beside the same rule in torch operations: `pytest benches/bench_quantize_block.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.quantize_block import large, values

from subbyte import kernels

FLOAT8 = {"e4m3fn": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def torch_quantize(x: np.ndarray, element: str, block: int, scale_dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The floor rule, or E4M3 scales; elements below 8 bits by search among the ties between their values."""
    rows = torch.from_numpy(x).float().reshape(-1, block)
    table, codes = values(element)
    largest = rows.abs().amax(dim=1, keepdim=True)
    if scale_dtype == "e8m0":
        top = int(np.floor(np.log2(table[-1])))
        biased = ((largest.view(torch.int32) >> 23) - top).clamp(0, 254)
        scale, steps = biased.to(torch.uint8), rows * torch.exp2((127 - biased).float())
    else:
        eight = (largest / table[-1]).to(torch.float8_e4m3fn)
        scale, steps = eight.view(torch.uint8), rows / eight.float().clamp(2.0**-9)
    steps = steps.clamp(table[0], table[-1])
    if element in FLOAT8:
        return steps.to(FLOAT8[element]).view(torch.uint8), scale
    if element == "int8":
        return steps.round().to(torch.int8).view(torch.uint8), scale
    ties = torch.from_numpy((table[1:] + table[:-1]) / 2).float()
    return torch.from_numpy(codes.astype(np.uint8))[torch.bucketize(steps, ties)], scale


def torchao(x: np.ndarray, element: str, block: int, scale_dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Its MX formats."""
    mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    types = {**FLOAT8, "e2m1": torch.float4_e2m1fn_x2}
    if scale_dtype != "e8m0" or element not in types or x.dtype != np.float32:
        pytest.skip("torchao has no such format on the CPU")
    scale, codes = mx.to_mx(torch.from_numpy(x), types[element], block)
    return codes, scale


CONTESTANTS = {"subbyte": kernels.quantize_block, "torch": torch_quantize, "torchao": torchao}


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", large((64, 4096)) + large((4096, 4096)), ids=str)
def bench_quantize_block(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"quantize_block {case}", case.bytes
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
