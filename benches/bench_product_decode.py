"""product_decode beside faiss' product quantizer with the same codebooks."""

from __future__ import annotations

from typing import Any

import pytest
from tests.oracles.case import Case
from tests.oracles.product_decode import large

from subbyte import kernels

CASES = [large(65_536, 16, 256, 8)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.product_decode(*case.args)


def faiss(case: Case) -> Any:
    peer = pytest.importorskip("faiss", reason="pip install faiss-cpu")
    codes, codebooks = case.args
    parts, count, dim = codebooks.shape
    quantizer = peer.ProductQuantizer(parts * dim, parts, count.bit_length() - 1)
    peer.copy_array_to_vector(codebooks.ravel(), quantizer.centroids)
    return lambda: quantizer.decode(codes)


@pytest.mark.parametrize("who", [subbyte, faiss])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_product_decode(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"product_decode {case}", case.bytes
    benchmark(who(case))
