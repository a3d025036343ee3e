"""product_scan beside faiss' fast scan of the same codes: 4 bits each, as many queries.

faiss keeps the nearest row of a query and writes no distances of the others, which the kernel does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.product_scan import codes_of, large

from subbyte import kernels

DIM = 4
CASES = [large(1, 16_384, 32), large(1, 524_288, 32), large(8, 524_288, 32), large(1, 524_288, 64)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.product_scan(*case.args, **case.kwargs)


def faiss(case: Case) -> Any:
    peer = pytest.importorskip("faiss", reason="pip install faiss-cpu")
    tables, blocks = case.args
    queries, parts, _ = tables.shape
    index = peer.IndexPQFastScan(parts * DIM, parts, 4)
    random = np.random.default_rng(0)
    index.train(random.standard_normal((2048, parts * DIM), np.float32))
    books = peer.vector_to_array(index.pq.centroids).reshape(parts, 16, DIM)
    # the codewords themselves, which the index encodes as these codes
    index.add(kernels.product_decode(codes_of(blocks, case.kwargs["rows"]), books))
    asked = random.standard_normal((queries, parts * DIM), np.float32)
    return lambda: index.search(asked, 1)


@pytest.mark.parametrize("who", [subbyte, faiss])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_product_scan(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"product_scan {case}", case.bytes
    benchmark(who(case))
