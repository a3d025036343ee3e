"""Decomposition and its parts against dense matrices: what they add up to, what they weigh, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.tensors.test_quantized import example

from subbyte.errors import DtypeError, NotFiniteError, RangeError, ShapeError, SubbyteError
from subbyte.tensors import Decomposition, Kept, QuantizedLayer, QuantizedTensor, Sparse

DRAW = np.random.default_rng(12)
WEIGHT = DRAW.standard_normal((5, 96)).astype(np.float32)
MASK = DRAW.random((5, 96)) < 0.1
MASK[2] = False


def dense() -> QuantizedTensor:
    return QuantizedTensor.from_codes(**example("int4/g32/f16"))


def test_entries_come_back_in_half_precision() -> None:
    sparse = Sparse.of(WEIGHT, MASK)
    np.testing.assert_array_equal(sparse.dense(), np.where(MASK, WEIGHT.astype(np.float16), 0).astype(np.float32))
    assert (sparse.values.dtype, sparse.columns.dtype) == (np.float16, np.uint16)
    assert sparse.nbytes == 4 * int(MASK.sum()) + 4 * 6
    assert (np.diff(sparse.pointers) == MASK.sum(axis=1)).all()


def test_a_stored_zero_is_an_entry() -> None:
    assert len(Sparse.of(np.zeros((2, 3), np.float32), np.ones((2, 3), np.bool_)).values) == 6


def test_what_is_too_large_for_half_precision_is_kept_in_single() -> None:
    weight = WEIGHT.copy()
    weight[0, 0] = 1e6
    sparse = Sparse.of(weight, np.ones_like(MASK))
    np.testing.assert_array_equal(sparse.dense(), weight)
    assert Kept.of(weight, np.array([0])).values[0, 0] == 1e6


def test_wide_rows_have_wide_columns() -> None:
    for cols, dtype in ((65_536, np.uint16), (65_537, np.int32)):
        weight = np.zeros((1, cols), np.float32)
        weight[0, -1] = 2
        sparse = Sparse.of(weight, weight > 0)
        assert sparse.columns.dtype == dtype
        assert sparse.dense()[0, -1] == 2


def test_the_parts_add_up() -> None:
    codes, kept = dense(), Kept.of(WEIGHT, np.array([95, 3, 4]))
    whole = Decomposition(codes, Sparse.of(WEIGHT, MASK), kept)
    expected = codes.dequantize() + np.where(MASK, WEIGHT.astype(np.float16), 0)
    expected[:, [3, 4, 95]] += WEIGHT[:, [3, 4, 95]].astype(np.float16)
    np.testing.assert_array_equal(whole.dequantize(), expected.astype(np.float32))
    assert (whole.shape, whole.scheme) == (codes.shape, codes.scheme)
    stored = codes.nbytes + 4 * int(MASK.sum()) + 4 * 6 + 2 * 15 + 4 * 3
    assert QuantizedLayer(whole).nbytes == whole.nbytes == stored
    assert whole.bits_per_weight == 8 * stored / (5 * 96)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"values": np.zeros(3, np.float64)}, DtypeError),
        ({"values": np.zeros((3, 1), np.float16)}, ShapeError),
        ({"values": np.float16([1, np.inf, 0])}, NotFiniteError),
        ({"columns": np.zeros(3, np.int32)}, DtypeError),
        ({"columns": np.zeros(2, np.uint16)}, ShapeError),
        ({"columns": np.uint16([0, 4, 1])}, RangeError),
        ({"columns": np.uint16([1, 1, 1])}, RangeError),
        ({"columns": np.uint16([2, 1, 1])}, RangeError),
        ({"pointers": np.int32([0, 3])}, ShapeError),
        ({"pointers": np.int64([0, 2, 3])}, DtypeError),
        ({"pointers": np.int32([1, 2, 3])}, RangeError),
        ({"pointers": np.int32([0, 4, 3])}, RangeError),
        ({"pointers": np.int32([0, 2, 2])}, RangeError),
        ({"pointers": np.int32([0, -1, 3])}, RangeError),
    ],
)
def test_entries_that_do_not_fit_are_refused(change: dict[str, Any], error: type[SubbyteError]) -> None:
    good = {"values": np.ones(3, np.float16), "columns": np.uint16([0, 3, 1]), "pointers": np.int32([0, 2, 3])}
    Sparse((2, 4), **good)
    with pytest.raises(error):
        Sparse((2, 4), **{**good, **change})


@pytest.mark.parametrize(
    ("values", "columns", "error"),
    [
        (np.ones((5, 2), np.float16), np.int32([4, 4]), RangeError),
        (np.ones((5, 2), np.float16), np.int32([-1, 4]), RangeError),
        (np.ones((5, 2), np.float16), np.int32([4]), ShapeError),
        (np.ones((5, 1), np.float16), np.int64([4]), DtypeError),
        (np.full((5, 1), np.nan, np.float32), np.int32([4]), NotFiniteError),
    ],
)
def test_columns_that_do_not_fit_are_refused(values: Any, columns: Any, error: type[SubbyteError]) -> None:
    with pytest.raises(error):
        Kept(values, columns)


def test_parts_of_another_shape_are_refused() -> None:
    for parts, error in [
        ({}, ShapeError),
        ({"sparse": Sparse.of(WEIGHT[:4], MASK[:4])}, ShapeError),
        ({"kept": Kept(np.ones((4, 1), np.float16), np.int32([0]))}, ShapeError),
        ({"kept": Kept(np.ones((5, 1), np.float16), np.int32([96]))}, RangeError),
    ]:
        with pytest.raises(error):
            Decomposition(dense(), **parts)
    with pytest.raises(ShapeError, match="mask"):
        Sparse.of(WEIGHT, MASK[:4])
    with pytest.raises(NotFiniteError):
        Sparse.of(np.full((1, 1), np.nan, np.float32), np.ones((1, 1), np.bool_))
