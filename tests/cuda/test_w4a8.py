"""cuda/gemm/w4a8.cu on the CPU, beside the oracle: the same bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from subbyte import kernels
from subbyte.cuda.gemm.w4a8 import check
from subbyte.errors import ShapeError
from tests.cuda.test_loader import on_gpu
from tests.emulator import Banks, Emulated
from tests.oracles.case import Case
from tests.oracles.w4a8 import case

# entry: rows and columns of its tile, threads, stages
ENTRIES = {"w4a8_m16": (16, 64, 128, 6), "w4a8_m128": (128, 128, 256, 3)}
#: One of each, odd everywhere, groups of a lane and across stages, full tiles, more stages than the ring holds.
CASES = [
    case(1, 1, 1),
    case(3, 5, 23, many=False),
    case(2, 66, 144, 16),
    case(17, 9, 96, 32, zeros=False),
    case(16, 64, 256, 128),
    case(5, 3, 1152, 384),
    case(129, 3, 128, 64, levels=False),
    case(2, 130, 64, levels=False, zeros=False),
]


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("w4a8")


def run(
    emulated: Emulated,
    entry: str,
    given: Case,
    summed: Emulated | None = None,
    depth: int = 0,
    reverse: bool = False,
    count: bool = False,
) -> tuple[np.ndarray, Banks]:
    (x, words, x_scale, w_scale), (level, zero, group, bias) = given.args, given.kwargs.values()
    (m, k), n = x.shape, len(words)
    rows, columns, threads, stages = ENTRIES[entry]
    y = np.full((m, n), np.nan, np.float32)
    steps, slices = [int(len(x_scale) > 1), int(len(w_scale) > 1)], -(-k // depth) if depth else 1
    parts = np.zeros((slices, m, n), np.int32) if slices > 1 else None
    arrays = [x, words.view(np.uint32), level, zero, x_scale, w_scale, bias, y, parts]
    numbers = [m, n, k, k if group == -1 else group, *steps, depth or -(-k // 128) * 128]
    grid = (-(-m // rows) * -(-n // columns), slices, 1)
    options = {"shared": stages * (rows * 128 + columns * 64), "reverse": reverse, "count": count}
    out = [y] if parts is None else [parts]
    banks = emulated.launch(entry, grid, (threads, 1, 1), [*arrays, *numbers], out=out, **options)
    if summed is not None and parts is not None:
        args = [parts, x_scale, w_scale, bias, y, slices, m, n, *steps]
        summed.launch("w8a8_sum", (-(-m * n // 256), 1, 1), (256, 1, 1), args, out=[y])
    return y, banks


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("given", CASES, ids=str)
def test_agrees_with_the_oracle(emulated: Emulated, entry: str, given: Case) -> None:
    got, _ = run(emulated, entry, given, reverse=len(given.args[1]) % 2 == 1)
    assert np.array_equal(got, given.oracle(*given.args, **given.kwargs))


@pytest.mark.parametrize("entry", ENTRIES)
def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated], entry: str) -> None:
    given = case(3, 5, 640, 320)
    got, _ = run(emulated, entry, given, emulate("w8a8"), depth=256)
    assert np.array_equal(got, given.oracle(*given.args, **given.kwargs))


def test_every_byte_that_a_code_can_become(emulated: Emulated) -> None:
    """All levels, zero points and codes whose weight is a byte: no byte of a word touches the next."""
    every = [(s, z, q) for s in range(1, 18) for z in range(16) for q in range(16) if -128 <= s * (q - z) <= 127]
    level, zero, code = np.array(every).T
    k, one = 16, np.ones(1, np.float32)
    # Around each code lie zeros of the weight, which a borrow would show in.
    codes = np.repeat(zero[:, None], k, axis=1)
    codes[:, 5] = code
    words = kernels.pack(codes.astype(np.uint8), bits=4)
    parameters = {"level": level.astype(np.uint8)[:, None], "zero": zero.astype(np.uint8)[:, None]}
    given = Case("", (np.eye(k, dtype=np.int8), words, one, one), {**parameters, "group": -1, "bias": None}, lambda: 0)
    got, _ = run(emulated, "w4a8_m16", given)
    assert np.array_equal(got[5], level * (code - zero))
    assert not np.delete(got, 5, axis=0).any()


@pytest.mark.parametrize("entry", ENTRIES)
def test_bank_conflicts(emulated: Emulated, entry: str) -> None:
    rows, columns, *_ = ENTRIES[entry]
    _, banks = run(emulated, entry, case(rows, columns, 256, 128), count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts == 0


def test_every_instance_is_covered(emulated: Emulated) -> None:
    assert sorted(emulated.entries) == sorted(ENTRIES)


def test_scales_of_groups_are_refused() -> None:
    x, words = on_gpu("x", (1, 64), "i8", 1), on_gpu("words", (3, 8), "i32", 4)
    of_x, of_w = on_gpu("x_scale", (1,), "f32", 4), on_gpu("w_scale", (3, 2), "f32", 4)
    with pytest.raises(ShapeError, match="CPU"):
        check(x, words, of_x, of_w, None, None, None, 32)
