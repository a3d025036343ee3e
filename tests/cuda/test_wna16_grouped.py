"""cuda/gemm/wna16_grouped.cu on the CPU, beside the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from subbyte.cuda.gemm.wna16 import MMA_BITS, mma
from subbyte.cuda.gemm.wna16_grouped import check
from subbyte.errors import DtypeError, RangeError, ShapeError
from tests.cuda.test_emulated import DTYPES, POISON, add
from tests.cuda.test_loader import on_gpu
from tests.emulator import Emulated
from tests.oracles.case import Case
from tests.oracles.wna16_grouped import case, wide

# Rows of the experts, N, K, group; rows of x, or None for those of y. Experts without rows first, last and between;
# tiles that are full, one too many and odd; more experts than a warp has lanes; rows of x that no copy may begin at.
SHAPES = [
    ((1,), 1, 1, -1, None),
    ((0, 3, 0, 17, 0), 5, 96, 32, 4),
    ((16, 0, 1), 130, 64, 64, None),
    ((65, 64), 3, 7, -1, 9),
    ((0,) * 31 + (2, 0, 1) + (0,) * 32 + (5,), 9, 40, -1, 3),
]


def run(
    emulated: Emulated,
    given: Case,
    dtype: str,
    rows: int,
    summed: Emulated | None = None,
    depth: int = 0,
    **options: bool,
) -> np.ndarray:
    """The result, x and the scales in that dtype."""
    x, words, scale, zero, offsets = given.args
    x, scale = x.astype(DTYPES[dtype]), scale.astype(DTYPES[dtype])
    bits, group, order = given.kwargs.values()
    (tokens, k), (experts, n, _) = x.shape, words.shape
    r, depth = len(x) if order is None else len(order), depth or -(-k // 64) * 64
    y, slices = np.full((r, n), POISON, np.uint16), -(-k // depth)
    parts = np.zeros((slices, r, n), np.float32) if slices > 1 else None
    chosen = None if order is None else order.view(np.uint32)
    arrays = [x.view(np.uint16), words.view(np.uint32), scale.view(np.uint16), zero, offsets.view(np.uint32), chosen]
    args = [*arrays, y, parts, tokens, experts, r, n, k, group, depth]
    grid, shared = ((r // rows + min(experts, r)) * -(-n // 128), slices, 1), mma(rows, bits).shared(r)
    entry = f"wna16_grouped_w{bits}_{dtype}_{'sym' if zero is None else 'asym'}_m{rows}"
    out = [y] if parts is None else [parts]
    emulated.launch(entry, grid, (256, 1, 1), args, out=out, shared=shared, **options)
    if summed is not None and parts is not None:
        add(summed, parts, y, dtype)
    assert not (y == POISON).any()
    return y.view(x.dtype)


def compare(got: np.ndarray, given: Case) -> None:
    """Within the bound that the kernel's head states, and half a step of the result's dtype."""
    x, words, scale, zero, offsets = given.args
    narrow = [each.astype(got.dtype).astype(np.float32) for each in (x, scale)]
    y, size = wide(narrow[0], words, narrow[1], zero, offsets, given.kwargs["bits"], given.kwargs["rows"])
    step = (2.0**-11, 2.0**-25) if got.dtype == np.float16 else (2.0**-8, 2.0**-134)
    exact = (x.shape[1] + 3) * 2.0**-23 * size
    assert (abs(got.astype(np.float64) - y) <= exact + (abs(y) + exact) * step[0] + step[1]).all()


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("wna16_grouped")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("zeros", [False, True], ids=["sym", "asym"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", MMA_BITS)
def test_agrees_with_the_oracle(emulated: Emulated, bits: int, dtype: str, zeros: bool, shape: tuple[Any, ...]) -> None:
    counts, n, k, group, tokens = shape
    given = case(counts, n, k, bits, group, zeros, tokens)
    for rows in (16, 64):
        compare(run(emulated, given, dtype, rows, reverse=rows == 64), given)


def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated]) -> None:
    given = case((0, 3, 14), 20, 320, 4, 160, zeros=True, tokens=5)
    compare(run(emulated, given, "f16", 16, emulate("sum"), depth=128), given)


def test_rows_do_not_touch(emulated: Emulated) -> None:
    """A row is the same bits whatever other rows and experts are there."""
    x, words, scale, zero, offsets = case((18, 0, 4), 9, 64).args
    whole = run(emulated, case((18, 0, 4), 9, 64), "f16", 16)
    options = {"bits": 4, "group": 64, "rows": None}
    alone = Case("", (x[19:20], words[2:], scale[2:], zero, np.array([0, 1], np.int32)), options, lambda: 0)
    assert np.array_equal(run(emulated, alone, "f16", 16)[0], whole[19])
    assert offsets.tolist() == [0, 18, 18, 22]


def test_a_row_that_x_has_not_is_nan(emulated: Emulated) -> None:
    given = case((3, 15), 5, 64, tokens=4)
    clean = run(emulated, given, "f16", 16)
    given.kwargs["rows"][[1, 9]] = -1, 4
    got = run(emulated, given, "f16", 16)
    others = np.delete(np.arange(18), [1, 9])
    assert np.isnan(got[[1, 9]]).all()
    assert np.array_equal(got[others], clean[others])


@pytest.mark.parametrize("wrong", [[0, 7, 3, 20], [1, 7, 9, 20], [0, 7, 9, 19], [0, 7, 9, 21], [0, -1, 9, 20]], ids=str)
def test_wrong_offsets_make_all_nan(emulated: Emulated, wrong: list[int]) -> None:
    given = case((7, 2, 11), 5, 64)
    given.args[4][:] = wrong
    assert np.isnan(run(emulated, given, "f16", 16)).all()


def test_every_instance_is_covered(emulated: Emulated) -> None:
    assert len(emulated.entries) == len(MMA_BITS) * len(DTYPES) * 2 * 2


def test_what_is_refused() -> None:
    x, words, scale = (
        on_gpu("x", (7, 64), "f16", 2),
        on_gpu("words", (3, 5, 8), "i32", 4),
        on_gpu("scale", (3, 5, 2), "f16", 2),
    )
    zero, offsets, rows = (
        on_gpu("zero", (3, 5, 2), "u8", 1),
        on_gpu("offsets", (4,), "i32", 4),
        on_gpu("rows", (100,), "i32", 4),
    )
    few, many = check(x, words, scale, zero, offsets, None, 4, 32), check(x, words, scale, None, offsets, rows, 4, 32)
    assert (few.r, few.tile.rows, few.tiles) == (7, 16, 3)
    assert (many.r, many.tile.rows, many.tiles) == (100, 64, 4)
    with pytest.raises(RangeError, match="bits"):
        check(x, words, scale, zero, offsets, None, 5, 32)
    for group in (16, 48, 0):
        with pytest.raises(ShapeError, match="group"):
            check(x, words, scale, zero, offsets, None, 4, group)
    with pytest.raises(DtypeError, match="zero"):
        check(x, words, scale, on_gpu("zero", (3, 5, 2), "f16", 2), offsets, None, 4, 32)
    wrong = on_gpu("offsets", (3,), "i32", 4), on_gpu("rows", (7, 1), "i32", 4), on_gpu("words", (3, 5, 7), "i32", 4)
    for args in ((words, wrong[0], None), (words, offsets, wrong[1]), (wrong[2], offsets, None)):
        with pytest.raises(ShapeError, match=r"offsets|rows|words"):
            check(x, args[0], scale, zero, *args[1:], 4, 32)
    nobody = (
        on_gpu("words", (0, 5, 8), "i32", 4),
        on_gpu("scale", (0, 5, 2), "f16", 2),
        None,
        on_gpu("offsets", (1,), "i32", 4),
    )
    with pytest.raises(ShapeError, match="at least one expert"):
        check(x, *nobody, None, 4, 32)
