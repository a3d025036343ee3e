"""cuda/gemm/w4a4.cu on the CPU, beside the oracle: as sm_90 runs it, with bytes, and as sm_80 does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from subbyte.cuda.gemm.w4a4 import check
from subbyte.errors import DtypeError, RangeError, ShapeError
from tests.cuda.test_emulated import add
from tests.cuda.test_loader import on_gpu
from tests.emulator import Banks, Emulated
from tests.oracles.case import Case
from tests.oracles.w4a4 import case

# entry: rows and columns of its tile, threads, stages
EXACT = {"w4a4_m16": (16, 64, 128, 4), "w4a4_m128": (128, 128, 256, 3)}
GROUPS = {"w4a4_groups_m16": (16, 128, 256, 3), "w4a4_groups_m64": (64, 128, 256, 3)}
ENTRIES = EXACT | GROUPS
#: One of each, odd everywhere, full tiles, more stages than the ring holds.
CHANNELS = [case(1, 1, 8), case(3, 66, 136, biased=True), case(17, 5, 1352), case(129, 3, 256)]
#: And groups of one chunk and of three stages, one that is no whole chunk; no outliers, a few, more than a stage.
GROUPED = [
    case(1, 1, 8, -1, 1),
    case(3, 130, 256, 128, biased=True),
    case(17, 5, 384, 384, 24),
    case(5, 9, 1536, 768, 200),
    case(65, 3, 256, 128, 128, biased=True),
    case(2, 3, 0, -1, 5),
]
NONE = [None] * 4


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("w4a4")


@pytest.fixture(scope="module")
def on_sm_80(emulated: Emulated, tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    code = '#define EMULATES_SM_80\n#include "gemm/w4a4.cu"'
    return Emulated(code, emulated.entries, tmp_path_factory.mktemp("w4a4_sm_80"))


def run(
    emulated: Emulated, entry: str, given: Case, depth: int = 0, summed: Emulated | None = None, **options: bool
) -> tuple[np.ndarray, Banks]:
    (x, words, x_scale, w_scale), (group, *outliers, bias) = given.args, given.kwargs.values()
    m, n, k = len(x), len(words), 8 * x.shape[1]
    rows, columns, threads, stages = ENTRIES[entry]
    y, slices = np.full((m, n), np.nan, np.float32), -(-k // depth) if depth else 1
    exact = entry in EXACT
    parts = np.zeros((slices, m, n), np.int32 if exact else np.float32) if slices > 1 else None
    codes = [x.view(np.uint32), words.view(np.uint32), x_scale, w_scale]
    sizes, depth = [m, n, k], depth or max(1, -(-k // 256)) * 256
    if exact:
        args = [*codes, bias, y, parts, *sizes, 1, 1, depth]
    else:
        count = outliers[0].shape[1] if outliers else 0
        args = [*codes, *(outliers or NONE), bias, y, parts, *sizes, max(k, 1) if group == -1 else group, count, depth]
    grid, shared = (-(-m // rows) * -(-n // columns), slices, 1), stages * (rows + columns) * 128
    out = [y] if parts is None else [parts]
    banks = emulated.launch(entry, grid, (threads, 1, 1), args, out=out, shared=shared, **options)
    if summed is not None and parts is not None:
        blocks = (-(-m * n // 256), 1, 1)
        if exact:
            last = [parts, x_scale, w_scale, bias, y, slices, m, n, 1, 1]
            summed.launch("w8a8_sum", blocks, (256, 1, 1), last, out=[y])
        else:
            add(summed, parts, y)
    return y, banks


@pytest.mark.parametrize("entry", EXACT)
@pytest.mark.parametrize("given", CHANNELS, ids=str)
def test_one_group_gives_the_bits_of_the_oracle(emulated: Emulated, entry: str, given: Case) -> None:
    got, _ = run(emulated, entry, given, reverse=len(given.args[1]) % 2 == 1)
    assert np.array_equal(got, given.oracle(*given.args, **given.kwargs))


@pytest.mark.parametrize("entry", GROUPS)
@pytest.mark.parametrize("given", GROUPED, ids=str)
def test_groups_and_outliers_agree_with_the_oracle(emulated: Emulated, entry: str, given: Case) -> None:
    got, _ = run(emulated, entry, given, reverse=len(given.args[1]) % 2 == 1)
    assert (abs(got - given.oracle(*given.args, **given.kwargs)) <= given.bound).all()


@pytest.mark.parametrize(("entry", "given"), [("w4a4_m16", CHANNELS[1]), ("w4a4_groups_m16", GROUPED[2])], ids=str)
def test_int4_tensor_cores_give_the_same_bits(emulated: Emulated, on_sm_80: Emulated, entry: str, given: Case) -> None:
    assert np.array_equal(run(emulated, entry, given)[0], run(on_sm_80, entry, given)[0])


def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated]) -> None:
    """The last one is short, and alone has the outliers; the first has the bias."""
    given = case(3, 5, 648, biased=True)
    got, _ = run(emulated, "w4a4_m16", given, 256, emulate("w8a8"))
    assert np.array_equal(got, given.oracle(*given.args, **given.kwargs))
    given = case(3, 5, 768, 384, 130, biased=True)
    got, _ = run(emulated, "w4a4_groups_m16", given, 256, emulate("sum"))
    assert (abs(got - given.oracle(*given.args, **given.kwargs)) <= given.bound).all()


@pytest.mark.parametrize(("entry", "outliers"), [("w4a4_m16", None), ("w4a4_groups_m16", 64)])
def test_the_largest_sums(emulated: Emulated, on_sm_80: Emulated, entry: str, outliers: int | None) -> None:
    """Accumulators that are the bits of floats hold the least and the largest sum of a chunk."""
    ones = np.ones((2, 1), np.float32)
    for x, w, beside in ((0, 0, -128), (0, -1, 127), (-1, -1, -128)):  # codes 0 and 15 all along, which are -8 and 7
        given = [np.full((2, 16), x, np.int32), np.full((2, 16), w, np.int32), ones, ones]
        options = {"group": -1}
        if outliers:
            columns = np.full((2, outliers), -128, np.int8), np.full((2, outliers), beside, np.int8)
            options |= dict(zip(("x", "w", "x_scale", "w_scale"), (*columns, ones[:, 0], ones[:, 0]), strict=True))
        want = (-8 if x == 0 else 7) * (-8 if w == 0 else 7) * 128 + -128 * beside * (outliers or 0)
        for one in (emulated, on_sm_80):
            got, _ = run(one, entry, Case("", tuple(given), options | {"bias": None}, lambda: 0))
            assert (got == want).all()


@pytest.mark.parametrize("entry", ENTRIES)
def test_bank_conflicts(emulated: Emulated, entry: str) -> None:
    rows, columns, *_ = ENTRIES[entry]
    _, banks = run(emulated, entry, case(rows, columns, 256, *([128, 128] if entry in GROUPS else [])), count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts == 0


def test_every_instance_is_covered(emulated: Emulated) -> None:
    assert sorted(emulated.entries) == sorted(ENTRIES)


def test_what_is_refused() -> None:
    x, words = on_gpu("x", (3, 32), "i32", 4), on_gpu("words", (5, 32), "i32", 4)
    of_x, of_w = on_gpu("x_scale", (3, 2), "f32", 4), on_gpu("w_scale", (5, 2), "f32", 4)
    beside = [on_gpu("x_outliers", (3, 7), "i8", 1), on_gpu("w_outliers", (5, 7), "i8", 1)]
    beside += [on_gpu("x_outlier_scale", (3,), "f32", 4), on_gpu("w_outlier_scale", (5,), "f32", 4)]
    sizes = check(x, words, of_x, of_w, 128, beside, None)
    assert (sizes.m, sizes.n, sizes.k, sizes.group, sizes.outliers, sizes.exact) == (3, 5, 256, 128, 7, False)
    one = [on_gpu(each.what, (each.shape[0], 1), "f32", 4) for each in (of_x, of_w)]
    assert check(x, words, *one, -1, NONE, None).exact
    assert not check(x, words, *one, -1, beside, None).exact
    for group in (32, 64, 96, 0):
        with pytest.raises(ShapeError, match="a multiple of 128, or -1"):
            check(x, words, of_x, of_w, group, NONE, None)
    for count in (1, 2, 3):
        with pytest.raises(ShapeError, match=f"outliers: given {count} of four arrays"):
            check(x, words, of_x, of_w, 128, [*beside[:count], *NONE[count:]], None)
    for at, what, shape in (
        (0, "x_outliers", (4, 7)),
        (1, "w_outliers", (5, 6)),
        (2, "x_outlier_scale", (1,)),
        (3, "w_outlier_scale", (5, 1)),
    ):
        wrong = [*beside[:at], on_gpu(what, shape, beside[at].dtype, beside[at].itemsize), *beside[at + 1 :]]
        with pytest.raises(ShapeError, match=what):
            check(x, words, of_x, of_w, 128, wrong, None)
    with pytest.raises(ShapeError, match="w_scale"):
        check(x, words, of_x, one[1], 128, NONE, None)
    with pytest.raises(DtypeError, match="x: given u8"):
        check(on_gpu("x", (3, 32), "u8", 1), words, of_x, of_w, 128, NONE, None)
    long = on_gpu("x", (3, 2**14), "i32", 4), on_gpu("words", (5, 2**14), "i32", 4)
    with pytest.raises(RangeError, match=r"K: given 131072, expected below 2\^17"):
        check(*long, *one, -1, NONE, None)
