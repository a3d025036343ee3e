"""kmeans beside faiss, both from the same centroids: five searches, and four (faiss: five) updates."""

from __future__ import annotations

from typing import Any

import pytest
from tests.oracles.case import Case
from tests.oracles.kmeans import large

from subbyte import kernels

CASES = [large(262_144, 8, 4096), large(65_536, 4, 256), large(65_536, 4, 4096), large(147_456, 2, 512)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.kmeans(*case.args, **case.kwargs)


def faiss(case: Case) -> Any:
    peer = pytest.importorskip("faiss", reason="pip install faiss-cpu")
    x, k, _, start = case.args
    job = peer.Kmeans(x.shape[1], k, niter=case.kwargs["iterations"] + 1, max_points_per_centroid=len(x))
    return lambda: job.train(x, init_centroids=start)


@pytest.mark.parametrize("who", [subbyte, faiss])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_kmeans(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group, benchmark.extra_info["flops"] = f"kmeans {case}", case.flops
    benchmark.pedantic(who(case), rounds=3)
