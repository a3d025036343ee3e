"""cuda/gemm/fp8_grouped.cu and fp8_grouped_sm90a.cu on the CPU, beside the oracle."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from subbyte.cuda.gemm.float8 import block
from subbyte.cuda.gemm.fp8_grouped import HOPPER, TILES, check
from subbyte.errors import DtypeError, ShapeError, UnknownNameError
from tests.cuda.test_emulated import add
from tests.cuda.test_fp8 import run as run_fp8
from tests.cuda.test_loader import on_gpu
from tests.emulator import Emulated
from tests.oracles.case import Case
from tests.oracles.fp8_grouped import case, cases

#: Tiles that are full, one too many and odd; more experts than a warp has lanes; rows of x that no copy may begin at.
SHAPES = [
    case((65, 64), 3, 7, tokens=9),
    case((16, 0, 1), 130, 256, (1, 128), (128, 128)),
    case((0,) * 31 + (2, 0, 1) + (0,) * 32 + (5,), 9, 40, (0, 0), (1, 128), "e5m2", biased=True, tokens=3),
]


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("fp8_grouped")


@pytest.fixture(scope="module")
def hopper(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("fp8_grouped_sm90a")


def run(
    emulated: Emulated,
    given: Case,
    rows: int,
    summed: Emulated | None = None,
    depth: int = 0,
    wgmma: bool = False,
    **options: bool,
) -> np.ndarray:
    x, weight, x_scale, w_scale, offsets = given.args
    format, bias, order = given.kwargs.values()
    (tokens, k), (experts, n, _) = x.shape, weight.shape
    r, depth = len(x) if order is None else len(order), depth or -(-k // 128) * 128
    y = np.full((r, n), 1e30, np.float32)
    slices = max(1, -(-k // depth)) if depth else 1
    parts = np.zeros((slices, r, n), np.float32) if slices > 1 else None
    grids = (*x_scale.shape, 1 if len(x_scale) == tokens else 128, *w_scale.shape[1:])
    chosen = None if order is None else order.view(np.uint32)
    arrays = [x, weight, x_scale, w_scale, offsets.view(np.uint32), bias, chosen, y, parts]
    numbers = [tokens, experts, r, n, k, *grids, 1 if w_scale.shape[1] == n else 128, depth]
    grid = ((r // rows + min(experts, r)) * -(-n // 128), slices, 1)
    out, of = [y] if parts is None else [parts], block("fp8_grouped", format, rows, wgmma=wgmma)
    emulated.launch(of.entry, grid, (of.threads, 1, 1), [*arrays, *numbers], out=out, shared=of.shared, **options)
    if summed is not None and parts is not None:
        add(summed, parts, y)
    assert not (y == np.float32(1e30)).any()
    return y


@pytest.mark.parametrize("given", [*SHAPES, *(each for each in cases() if each.args[0].size)], ids=str)
def test_agrees_with_the_oracle(emulated: Emulated, given: Case) -> None:
    expected = given.oracle(*given.args, **given.kwargs)
    for rows in TILES if expected.size else ():
        got = run(emulated, given, rows, reverse=rows == 64)
        assert (abs(got - expected) <= given.bound).all()


def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated]) -> None:
    given = case((0, 3, 14), 20, 600, (1, 128), (128, 128), biased=True, tokens=5)
    got = run(emulated, given, 16, emulate("sum"), depth=256)
    assert (abs(got - given.oracle(*given.args, **given.kwargs)) <= given.bound).all()


@pytest.mark.parametrize("rows", HOPPER[1:])
def test_wgmma_agrees_with_the_oracle(hopper: Emulated, rows: int) -> None:
    """Whole numbers, whose sums are not cut: rows in any order, full tiles, one too many, experts without rows."""
    for given in (
        case((rows + 1, rows), 3, 7, tokens=9, whole=True),
        case((16, 0, 1), 130, 400, (1, 128), (128, 128), biased=True, whole=True),
        case((0,) * 31 + (2, 0, 1) + (0,) * 32 + (5,), 9, 40, (0, 0), (1, 128), "e5m2", tokens=3, whole=True),
    ):
        got = run(hopper, given, rows, wgmma=True, reverse=rows == 64)
        assert (abs(got - given.oracle(*given.args, **given.kwargs)) <= given.bound).all()


@pytest.mark.parametrize("wgmma", [False, True])
def test_gives_the_bits_of_each_expert_alone(
    emulated: Emulated, hopper: Emulated, emulate: Callable[[str], Emulated], wgmma: bool
) -> None:
    """A row is the same whatever other rows and experts are there."""
    given = case((18, 0, 4), 9, 200, (1, 128), (1, 128), biased=True)
    (x, weight, x_scale, w_scale, offsets), (format, bias, _) = given.args, given.kwargs.values()
    rows, of = 64 if wgmma else 16, hopper if wgmma else emulated
    got, fp8 = run(of, given, rows, wgmma=wgmma), emulate("fp8_sm90a" if wgmma else "fp8")
    for e, (first, last) in enumerate(pairwise(offsets.tolist())):
        if first < last:
            alone = (x[first:last], weight[e], x_scale[first:last], w_scale[e], format, bias[e])
            want, _ = run_fp8(fp8, Case("", tuple(map(copied, alone)), {}, lambda: 0), rows, wgmma=wgmma)
            assert np.array_equal(got[first:last], want)


def copied(given: object) -> object:
    return given.copy() if isinstance(given, np.ndarray) else given


@pytest.mark.parametrize("wgmma", [False, True])
def test_a_row_that_x_has_not_is_nan(emulated: Emulated, hopper: Emulated, wgmma: bool) -> None:
    given, of, rows = case((3, 15), 5, 64, (1, 128), biased=True, tokens=4), hopper if wgmma else emulated, 64
    clean = run(of, given, rows, wgmma=wgmma)
    given.kwargs["rows"][[1, 9]] = -1, 4
    got = run(of, given, rows, wgmma=wgmma)
    others = np.delete(np.arange(18), [1, 9])
    assert np.isnan(got[[1, 9]]).all()
    assert np.array_equal(got[others], clean[others])


@pytest.mark.parametrize("wrong", [[0, 7, 3, 20], [1, 7, 9, 20], [0, 7, 9, 19], [0, 7, 9, 21], [0, -1, 9, 20]], ids=str)
def test_wrong_offsets_make_all_nan(emulated: Emulated, hopper: Emulated, wrong: list[int]) -> None:
    given = case((7, 2, 11), 5, 64, biased=True)
    given.args[4][:] = wrong
    assert np.isnan(run(emulated, given, 16)).all()
    assert np.isnan(run(hopper, given, 64, wgmma=True)).all()


def test_every_instance_is_covered(emulated: Emulated, hopper: Emulated) -> None:
    assert len(emulated.entries) == 2 * len(TILES)
    assert len(hopper.entries) == 2 * len(HOPPER[1:])


def test_what_is_refused() -> None:
    x, weight = on_gpu("x", (300, 200), "u8", 1), on_gpu("weight", (3, 5, 200), "u8", 1)
    token, block = (on_gpu("x_scale", shape, "f32", 4) for shape in ((300, 1), (3, 2)))
    channel, offsets = on_gpu("w_scale", (3, 5, 2), "f32", 4), on_gpu("offsets", (4,), "i32", 4)
    rows, bias = on_gpu("rows", (7,), "i32", 4), on_gpu("bias", (3, 5), "f32", 4)
    many = check(x, weight, token, channel, offsets, "e4m3fn", bias, None)
    few = check(x, weight, block, channel, offsets, "e5m2", None, rows)
    assert (many.r, many.tall, many.tiles, many.grids) == (300, 64, 7, (300, 1, 1, 5, 2, 1))
    tall = [check(x, weight, token, channel, offsets, "e4m3fn", bias, None, tiles).tall for tiles in (TILES, HOPPER)]
    assert tall == [64, 128]
    assert (few.r, few.tall, few.tiles, few.grids) == (7, 16, 3, (3, 2, 128, 5, 2, 1))
    good = {"weight": weight, "x_scale": token, "w_scale": channel, "offsets": offsets, "format": "e4m3fn"}
    good |= {"bias": bias, "rows": rows}
    for change, error, says in (
        ({"format": "e4m3"}, UnknownNameError, "expected one of e4m3fn, e5m2"),
        ({"weight": on_gpu("weight", (3, 5, 199), "u8", 1)}, ShapeError, r"expected \[E, N, 200\]"),
        ({"weight": on_gpu("weight", (3, 5, 200), "i8", 1)}, DtypeError, "weight: given i8"),
        ({"w_scale": on_gpu("w_scale", (3, 2, 2), "f32", 4)}, ShapeError, "5 rows of 1 or 2 scales for each of 3"),
        ({"w_scale": on_gpu("w_scale", (5, 2), "f32", 4)}, ShapeError, "w_scale"),
        ({"x_scale": on_gpu("x_scale", (7, 1), "f32", 4)}, ShapeError, "1, 3 or 300 rows of 1 or 2 scales$"),
        ({"bias": on_gpu("bias", (5,), "f32", 4)}, ShapeError, "bias"),
        ({"offsets": on_gpu("offsets", (3,), "i32", 4)}, ShapeError, "offsets"),
        ({"rows": on_gpu("rows", (7, 1), "i32", 4)}, ShapeError, "rows"),
    ):
        with pytest.raises(error, match=says):
            check(x, **{**good, **change})
    nobody = {
        "weight": on_gpu("weight", (0, 5, 200), "u8", 1),
        "w_scale": on_gpu("w_scale", (0, 1, 1), "f32", 4),
        "offsets": on_gpu("offsets", (1,), "i32", 4),
        "bias": None,
    }
    with pytest.raises(ShapeError, match="at least one expert"):
        check(x, **{**good, **nobody})
