from __future__ import annotations

import numpy as np
import pytest
from tests.oracles import product_scan as oracle
from tests.oracles.case import Case

from subbyte import kernels
from subbyte.errors import DtypeError, NotFiniteError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", oracle.cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        sums, bound = kernels.product_scan(*case.args, **case.kwargs)
    case.check((sums, bound))
    off = np.abs(sums - oracle.exact(*case.args, **case.kwargs))
    assert (off <= bound[:, None] + case.bound).all()


def test_paths_and_threads_change_nothing() -> None:
    case = oracle.case(3, 70_001, 31)
    with kernels.forced("scalar", 1):
        alone = kernels.product_scan(*case.args, **case.kwargs)
    for path, threads in ((path, threads) for path in kernels.paths() for threads in (1, 2, 5)):
        with kernels.forced(path, threads):
            for got, expected in zip(kernels.product_scan(*case.args, **case.kwargs), alone, strict=True):
                np.testing.assert_array_equal(got, expected)


def test_the_layout_is_a_permutation() -> None:
    codes = np.random.default_rng(0).integers(0, 16, (77, 5), np.uint8)
    np.testing.assert_array_equal(oracle.codes_of(oracle.blocks_of(codes), 77), codes)
    blocks = np.random.default_rng(1).integers(0, 256, (3, 5, 16), np.uint8)
    np.testing.assert_array_equal(oracle.blocks_of(oracle.codes_of(blocks, 96)), blocks)


@paths
def test_candidates_within_the_bound_make_an_exact_search(path: str) -> None:
    """Squared distances from queries to what codes of 4 bits stand for (vq_search's checks)."""
    random = np.random.default_rng(2)
    x, codebooks = random.standard_normal((4000, 32), np.float32), random.standard_normal((8, 16, 4), np.float32)
    queries = random.standard_normal((5, 32), np.float32)
    codes = kernels.product_encode(x, codebooks)
    tables = np.square(queries.reshape(5, 8, 1, 4) - codebooks).sum(3)
    with kernels.forced(path):
        sums, bound = kernels.product_scan(tables, oracle.blocks_of(codes), rows=4000)
    decoded = kernels.product_decode(codes, codebooks).astype(np.float64)
    distance = np.square(queries[:, None] - decoded).sum(2)
    candidates = sums <= sums.min(1, keepdims=True) + 2 * bound[:, None] * (1 + 1e-5)
    assert (np.where(candidates, distance, np.inf).argmin(1) == distance.argmin(1)).all()
    assert candidates.mean() < 0.1  # else it would be no search


@paths
def test_tables_of_one_value_are_exact(path: str) -> None:
    tables = np.tile(np.float32([0.5, -3.0, 1e-3])[:, None], (2, 1, 16))
    blocks = np.random.default_rng(3).integers(0, 256, (2, 3, 16), np.uint8)
    with kernels.forced(path):
        sums, bound = kernels.product_scan(tables, blocks, rows=50)
    np.testing.assert_array_equal(sums, np.full((2, 50), np.float32(0.5 - 3.0 + float(np.float32(1e-3)))))
    np.testing.assert_array_equal(bound, np.zeros(2, np.float32))


def test_wrong_calls_are_refused() -> None:
    tables, blocks = np.ones((2, 3, 16), np.float32), np.zeros((2, 3, 16), np.uint8)
    for rows in (32, 65):
        with pytest.raises(ShapeError, match="blocks"):
            kernels.product_scan(tables, blocks, rows=rows)
    with pytest.raises(RangeError, match="rows"):
        kernels.product_scan(tables, blocks, rows=-1)
    with pytest.raises(RangeError, match="65535"):
        kernels.product_scan(np.zeros((1, 65_536, 16), np.float32), np.zeros((1, 65_536, 16), np.uint8), rows=1)
    with pytest.raises(ShapeError, match="tables"):
        kernels.product_scan(tables[:, :, :8].copy(), blocks, rows=40)
    with pytest.raises(DtypeError):
        kernels.product_scan(tables, blocks.astype(np.int8), rows=40)
    tables[1, 2, 3] = np.nan
    with pytest.raises(NotFiniteError, match="tables"):
        kernels.product_scan(tables, blocks, rows=40)
