"""AWQ's clip search beside torch: `pytest benches/bench_search_clip.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.case import Case
from tests.oracles.search_clip import large

from subbyte import kernels


def search_clip_torch(
    weight: np.ndarray, gram: np.ndarray, bits: int, group: int, symmetric: bool, forced_zero: bool, eps: float
) -> torch.Tensor:
    """AWQ's asymmetric grid."""
    assert not symmetric
    assert not forced_zero
    w, form, top = torch.from_numpy(weight), torch.from_numpy(gram), 2**bits - 1
    w = w.view(len(w), -1, group).transpose(0, 1).contiguous()  # a group's rows side by side, as bmm wants them
    largest = w.abs().amax(-1, keepdim=True)
    least, best = torch.full_like(largest, torch.inf), largest
    for i in range(10):
        clip = largest * (1 - i / 20)
        clipped = torch.minimum(torch.maximum(w, -clip), clip)
        lo, hi = clipped.amin(-1, keepdim=True), clipped.amax(-1, keepdim=True)
        scale = (hi - lo).clamp(min=eps) / top
        zero = torch.round(-lo / scale).clamp(0, top)
        d = scale * (torch.clamp(torch.round(clipped / scale) + zero, 0, top) - zero) - w
        error = (torch.bmm(d, form) * d).sum(-1, keepdim=True)
        better = error < least
        least, best = torch.where(better, error, least), torch.where(better, clip, best)
    return best


CONTESTANTS = {"subbyte": kernels.search_clip, "torch": search_clip_torch}
CASES = [large(256, 1024, 64), large(256, 1024, 128), large(256, 1024, 1024)]


@pytest.mark.parametrize("who", CONTESTANTS)
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_search_clip(benchmark: BenchmarkFixture, case: Case, who: str) -> None:
    benchmark.group, benchmark.extra_info["flops"] = f"search_clip {case}", case.flops
    benchmark(CONTESTANTS[who], *case.args, **case.kwargs)
