from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.csr import case, cases, spread

from subbyte import kernels
from subbyte.errors import DtypeError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.csr(*case.args))


@paths
@pytest.mark.parametrize("rows", [1, 4, 5, 40])
def test_does_not_depend_on_the_threads(rows: int, path: str) -> None:
    one = case(rows, 300, 96, 0.1)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.csr(*one.args))
    assert all(np.array_equal(result, results[0]) for result in results)


@paths
@pytest.mark.parametrize("rows", [1, 96])
def test_one_hot_inputs_read_single_entries_exactly(rows: int, path: str) -> None:
    _, values, columns, pointers, _ = case(1, 20, 96, 0.2).args
    with kernels.forced(path):
        got = kernels.csr(np.eye(96, dtype=np.float32)[:rows], values, columns, pointers)
    assert np.array_equal(got.T, spread(values, columns, pointers, 96)[:, :rows].astype(np.float32))


@paths
@pytest.mark.parametrize("rows", [1, 9])
def test_not_finite_inputs_show_in_the_rows_that_read_them(rows: int, path: str) -> None:
    x, values, columns, pointers, base = case(rows, 20, 40, 0.2).args
    x[0, 7] = np.inf
    with kernels.forced(path):
        got = kernels.csr(x, values, columns, pointers, base)
    reads = np.array([7 in columns[start:end] for start, end in pairwise(pointers)])
    assert reads.any()
    assert not np.isfinite(got[0, reads]).any()
    assert np.isfinite(got[0, ~reads]).all()
    assert np.isfinite(got[1:]).all()


def test_entries_at_one_place_add_up() -> None:
    twice = kernels.csr(np.float32([[1, 2]]), np.float32([3, 4]), np.uint16([1, 1]), np.int32([0, 2]))
    assert twice.tolist() == [[14.0]]


@pytest.mark.parametrize(
    "pointers", [[0, 2, 1, 3], [1, 2, 2, 3], [0, 1, 2, 2], [0, 1, 2, 4], [0, -1, 2, 3], [0, 5, 5, 3]]
)
def test_pointers_that_do_not_rise_to_the_end_are_refused(pointers: list[int]) -> None:
    with pytest.raises(RangeError, match="pointers"):
        kernels.csr(np.ones((1, 4), np.float32), np.ones(3, np.float16), np.zeros(3, np.uint16), np.int32(pointers))


@pytest.mark.parametrize("column", [np.uint16(4), np.int32(4), np.int32(-1)])
def test_columns_outside_x_are_refused(column: np.generic) -> None:
    columns = np.array([0, column, 0], column.dtype)
    with pytest.raises(RangeError, match="columns: given a column at 1"):
        kernels.csr(np.ones((1, 4), np.float32), np.ones(3, np.float16), columns, np.int32([0, 1, 2, 3]))


def test_shapes_and_dtypes_that_do_not_fit() -> None:
    x, values, columns, pointers, base = case(2, 5, 30, 0.3).args
    for args in [
        (x, values[1:].copy(), columns, pointers, base),
        (x, values, columns, pointers, base[:, 1:].copy()),
        (x, values, columns, pointers[:0].copy(), None),
        (x, values.reshape(1, -1), columns, pointers, base),
    ]:
        with pytest.raises(ShapeError):
            kernels.csr(*args)
    with pytest.raises(DtypeError, match="columns: given i64, expected u16 or i32"):
        kernels.csr(x, values, columns.astype(np.int64), pointers)
