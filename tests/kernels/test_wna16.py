from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.wna16 import case, cases

from subbyte import kernels
from subbyte.errors import RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.wna16(*case.args, **case.kwargs))


@paths
@pytest.mark.parametrize("rows", [1, 8, 9, 40])
def test_does_not_depend_on_the_threads(rows: int, path: str) -> None:
    one = case(rows, 300, 96, 3, 32, zeros=True)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.wna16(*one.args, **one.kwargs))
    assert all(np.array_equal(result, results[0]) for result in results)


@paths
@pytest.mark.parametrize("bits", range(1, 9))
def test_one_hot_inputs_read_single_weights_exactly(bits: int, path: str) -> None:
    random = np.random.default_rng(bits)
    codes = random.integers(0, 2**bits, (5, 96)).astype(np.uint8)
    scale, zero = (
        random.uniform(0.1, 1, (5, 3)).astype(np.float32),
        random.integers(0, 2**bits, (5, 3)).astype(np.uint8),
    )
    with kernels.forced(path):
        words = kernels.pack(codes, bits=bits)
        got = kernels.wna16(np.eye(96, dtype=np.float32), words, scale, zero, bits=bits, group=32)
        assert np.array_equal(got.T, kernels.dequantize_affine(codes, scale, zero, group=32))


@paths
@pytest.mark.parametrize("rows", [1, 3, 12])
def test_order_of_the_columns(rows: int, path: str) -> None:
    """Act-order: groups of columns that are no neighbours. As if x had been laid out anew, and the same bits."""
    one = case(rows, 9, 96, 4, 32, zeros=True)
    order = np.random.default_rng(rows).permutation(96).astype(np.int32)
    turned = replace(one, kwargs={**one.kwargs, "order": order}, bound=1.5 * one.bound)
    with kernels.forced(path):
        turned.check(got := kernels.wna16(*turned.args, **turned.kwargs))
        x = np.ascontiguousarray(one.args[0][:, order])
        assert np.array_equal(got, kernels.wna16(x, *one.args[1:], **one.kwargs))


def test_no_order() -> None:
    one = case(2, 3, 32, 4, 32, zeros=False)
    for order, kind in ((np.full(32, 32), RangeError), (np.full(32, -1), RangeError), (np.arange(31), ShapeError)):
        with pytest.raises(kind, match="order"):
            kernels.wna16(*one.args, **one.kwargs, order=order.astype(np.int32))


@paths
def test_not_finite_inputs_show(path: str) -> None:
    one = case(3, 4, 64, 4, 32, zeros=False)
    x = one.args[0].copy()
    x[1, 5] = np.nan
    with kernels.forced(path):
        got = kernels.wna16(x, *one.args[1:], **one.kwargs)
    assert np.isfinite(got[[0, 2]]).all()
    assert np.isnan(got[1]).all()


def test_no_columns_give_zeros() -> None:
    x, words, scale = np.zeros((2, 0), np.float32), np.zeros((3, 0), np.int32), np.zeros((3, 0), np.float32)
    assert np.array_equal(kernels.wna16(x, words, scale, None, bits=4), np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("bits", [0, 9])
def test_bits_out_of_range(bits: int) -> None:
    one = case(2, 3, 32, 4, 32, zeros=False)
    with pytest.raises(RangeError):
        kernels.wna16(*one.args, bits=bits)


def test_shapes_that_do_not_fit() -> None:
    one = case(2, 3, 32, 4, 16, zeros=True)
    x, words, scale, zero = one.args
    for args in [
        (x, words[:, :3].copy(), scale, zero),
        (x, words, scale[:2], zero),
        (x, words, scale, zero[:, :1].copy()),
    ]:
        with pytest.raises(ShapeError):
            kernels.wna16(*args, bits=4, group=16)
    with pytest.raises(ShapeError):
        kernels.wna16(*one.args, bits=4, group=5)
