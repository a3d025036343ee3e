from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.lookup import case, cases

from subbyte import kernels
from subbyte.errors import ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.lookup(*case.args, **case.kwargs))


@paths
@pytest.mark.parametrize("rows", [1, 8, 40])
def test_does_not_depend_on_the_threads(rows: int, path: str) -> None:
    one = case(rows, 300, 96, 4, 32, by_row=False, check=False)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.lookup(*one.args, **one.kwargs))
    assert all(np.array_equal(result, results[0]) for result in results)


@paths
@pytest.mark.parametrize("bits", range(1, 9))
def test_one_hot_inputs_read_single_values_exactly(bits: int, path: str) -> None:
    random = np.random.default_rng(bits)
    codes = random.integers(0, 2**bits, (5, 96)).astype(np.uint8)
    scale = random.uniform(0.1, 1, (5, 3)).astype(np.float32)
    for tables in (1, 5):
        table = random.standard_normal((tables, 2**bits)).astype(np.float32)
        with kernels.forced(path):
            words = kernels.pack(codes, bits=bits)
            got = kernels.lookup(np.eye(96, dtype=np.float32), words, scale, table, group=32)
            assert np.array_equal(got.T, kernels.dequantize_table(codes, scale, table, group=32))


@paths
@pytest.mark.parametrize("bits", range(1, 9))
def test_a_table_of_integers_is_wna16(bits: int, path: str) -> None:
    one = case(3, 6, 64, bits, 32, by_row=False, check=False)
    x, words, scale, _ = one.args
    table = np.arange(2**bits, dtype=np.float32)[None] - np.float32(2 ** (bits - 1))
    with kernels.forced(path):
        got, expected = kernels.lookup(x, words, scale, table, 32), kernels.wna16(x, words, scale, None, bits, 32)
    assert np.array_equal(got, expected)


@paths
def test_not_finite_inputs_and_values_show(path: str) -> None:
    x, words, scale, table = case(3, 4, 64, 4, 32, by_row=False).args
    x, table = x.copy(), table.copy()
    x[1, 5] = np.nan
    with kernels.forced(path):
        got = kernels.lookup(x, words, scale, table, group=32)
        assert np.isfinite(got[[0, 2]]).all()
        assert np.isnan(got[1]).all()
        table[:] = np.inf
        assert not np.isfinite(kernels.lookup(x, words, scale, table, group=32)).any()


def test_no_columns_give_zeros() -> None:
    x, words, scale = np.zeros((2, 0), np.float32), np.zeros((3, 0), np.int32), np.zeros((3, 0), np.float32)
    assert np.array_equal(kernels.lookup(x, words, scale, np.ones((1, 16), np.float32)), np.zeros((2, 3), np.float32))


def test_what_does_not_fit_is_refused() -> None:
    x, words, scale, table = case(2, 6, 32, 4, 16, by_row=True).args
    for values in (1, 3, 15, 512):
        with pytest.raises(ShapeError, match="table"):
            kernels.lookup(x, words, scale, np.zeros((1, values), np.float32), group=16)
    wrong = [(x, words[:, :3].copy(), scale, table), (x, words, scale[:2], table), (x, words, scale, table[:2])]
    for args in wrong:
        with pytest.raises(ShapeError):
            kernels.lookup(*args, group=16)
    with pytest.raises(ShapeError, match="group"):
        kernels.lookup(x, words, scale, table, group=5)
