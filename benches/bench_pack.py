"""Packing beside shifts and sums in torch: `pytest benches/bench_pack.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.pack import cases

from subbyte import kernels


def pack_torch(codes: np.ndarray, bits: int, order: str) -> torch.Tensor:
    x = torch.from_numpy(codes)
    if order == "awq":
        x = x.view(len(x), -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]].reshape(x.shape)
    if order == "planar":
        planes, low = [], 0
        for width in (8, 4, 2, 1):
            if bits & width:
                planes.append(join(x >> low & (1 << width) - 1, width).view(len(x), -1, width))
                low += width
        return torch.cat(planes, -1).view(len(x), -1)
    return join(x, bits)


def join(x: torch.Tensor, bits: int) -> torch.Tensor:
    """The dense stream: whole codes shifted into words where none straddles, else bit by bit."""
    if 32 % bits == 0:
        shifts = torch.arange(0, 32, bits, dtype=torch.int32)
        return (x.view(len(x), -1, 32 // bits).int() << shifts).sum(-1, dtype=torch.int32)
    ones = x.unsqueeze(-1) >> torch.arange(bits, dtype=torch.uint8) & 1
    return (ones.view(len(x), -1, 32).int() << torch.arange(32, dtype=torch.int32)).sum(-1, dtype=torch.int32)


def pack_to_int32(codes: np.ndarray, bits: int, order: str) -> torch.Tensor:
    """Of compressed-tensors, whose codes are signed."""
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    if order != "dense":
        pytest.skip("compressed-tensors has the dense order alone")
    packed: torch.Tensor = helpers.pack_to_int32(torch.from_numpy(codes).view(torch.int8), bits)
    return packed


CONTESTANTS = {"subbyte": kernels.pack, "torch": pack_torch, "compressed-tensors": pack_to_int32}

CASES = [*cases(sizes=(4096,), rows=64, bits=(2, 3, 4, 5, 8)), *cases(sizes=(4096,), rows=4096, bits=(3, 4))]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_pack(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"pack {case}", case.bytes
    np.testing.assert_array_equal(
        pack_torch(case.args[0][:2], **case.kwargs), kernels.pack(case.args[0][:2], **case.kwargs)
    )
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
