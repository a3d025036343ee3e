"""nearest_codeword beside faiss' flat index and torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.nearest_codeword import large

from subbyte import kernels

CASES = [large(262_144, 4096, 8), large(65_536, 256, 4), large(65_536, 16, 4), large(4096, 65_536, 8)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.nearest_codeword(*case.args)


def faiss(case: Case) -> Any:
    peer = pytest.importorskip("faiss", reason="pip install faiss-cpu")
    x, codebook, *_ = case.args
    index = peer.IndexFlatL2(codebook.shape[1])
    index.add(codebook)
    return lambda: index.search(x, 1)


def cdist(case: Case) -> Any:
    x, codebook = (torch.from_numpy(array) for array in case.args[:2])
    return lambda: torch.cat([torch.cdist(part, codebook).argmin(1) for part in x.split(4096)])


@pytest.mark.parametrize("who", [subbyte, faiss, cdist])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_nearest_codeword(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"nearest_codeword {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
