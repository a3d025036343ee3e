"""Unpacking beside shifts and masks in torch: `pytest benches/bench_unpack.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.unpack import cases

from subbyte import kernels


def unpack_torch(words: np.ndarray, bits: int, cols: int, order: str) -> torch.Tensor:
    w = torch.from_numpy(words)
    if order == "awq":
        return part(w, 4).view(len(w), -1, 8)[..., [0, 4, 1, 5, 2, 6, 3, 7]].reshape(len(w), cols)
    if order == "planar":
        codes, low = torch.zeros(len(w), cols, dtype=torch.uint8), 0
        for width in (8, 4, 2, 1):
            if bits & width:
                plane = w.view(len(w), -1, bits)[..., low : low + width].reshape(len(w), -1)
                codes |= part(plane, width) << low
                low += width
        return codes
    return part(w, bits)


def part(w: torch.Tensor, bits: int) -> torch.Tensor:
    """The dense stream: whole codes shifted out of words where none straddles, else bit by bit."""
    if 32 % bits == 0:
        shifts = torch.arange(0, 32, bits, dtype=torch.int32)
        return (w.unsqueeze(-1) >> shifts & (1 << bits) - 1).to(torch.uint8).view(len(w), -1)
    ones = (w.unsqueeze(-1) >> torch.arange(32, dtype=torch.int32) & 1).to(torch.uint8).view(len(w), -1, bits)
    return (ones << torch.arange(bits, dtype=torch.uint8)).sum(-1, dtype=torch.uint8)


def unpack_from_int32(words: np.ndarray, bits: int, cols: int, order: str) -> torch.Tensor:
    """Of compressed-tensors, whose codes are signed."""
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    if order != "dense":
        pytest.skip("compressed-tensors has the dense order alone")
    codes: torch.Tensor = helpers.unpack_from_int32(torch.from_numpy(words), bits, torch.Size([len(words), cols]))
    return codes


CONTESTANTS = {"subbyte": kernels.unpack, "torch": unpack_torch, "compressed-tensors": unpack_from_int32}

CASES = [*cases(sizes=(4096,), rows=64, bits=(2, 3, 4, 5, 8)), *cases(sizes=(4096,), rows=4096, bits=(3, 4))]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_unpack(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"unpack {case}", case.bytes
    few = case.args[0][:2]
    np.testing.assert_array_equal(unpack_torch(few, **case.kwargs), kernels.unpack(few, **case.kwargs))
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
