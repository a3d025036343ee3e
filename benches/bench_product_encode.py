"""product_encode beside faiss' product quantizer with the same codebooks: 128 numbers a row, 16 codes of 8 bits."""

from __future__ import annotations

from typing import Any

import pytest
from tests.oracles.case import Case
from tests.oracles.product_encode import large

from subbyte import kernels

CASES = [large(65_536, 16, 256, 8), large(65_536, 32, 16, 4)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.product_encode(*case.args)


def faiss(case: Case) -> Any:
    peer = pytest.importorskip("faiss", reason="pip install faiss-cpu")
    x, codebooks = case.args
    parts, count, _ = codebooks.shape
    quantizer = peer.ProductQuantizer(x.shape[1], parts, count.bit_length() - 1)
    peer.copy_array_to_vector(codebooks.ravel(), quantizer.centroids)
    return lambda: quantizer.compute_codes(x)


@pytest.mark.parametrize("who", [subbyte, faiss])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_product_encode(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"product_encode {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
