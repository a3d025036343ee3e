"""cuda/gemm/w8a8.cu and w8a8_sm90a.cu on the CPU, beside the oracle: the same bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.emulator import Banks, Emulated
from tests.oracles.case import Case
from tests.oracles.w8a8 import case, cases

# entry: rows and columns of its tile, threads, stages
ENTRIES = {"w8a8_m16": (16, 64, 128, 4), "w8a8_m128": (128, 128, 256, 3)}
HOPPER = {"w8a8_sm90a_m64": (64, 128, 128, 4), "w8a8_sm90a_m128": (128, 128, 256, 4)}
#: Beside the oracle's own: tiles that are full, more stages than the ring holds, rows that a wide copy may begin at.
TILES = [case(17, 65, 144), case(16, 64, 640), case(129, 3, 256), case(1, 130, 520, many=False)]


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> dict[str, Emulated]:
    """The file of each entry."""
    return {entry: each for each in (emulate("w8a8"), emulate("w8a8_sm90a")) for entry in each.entries}


def run(
    emulated: dict[str, Emulated], entry: str, given: Case, depth: int = 0, reverse: bool = False, count: bool = False
) -> tuple[np.ndarray, Banks]:
    x, weight, x_scale, w_scale, bias = (*given.args, None)[:5]
    m, n, k = len(x), len(weight), x.shape[1]
    rows, columns, threads, stages = (ENTRIES | HOPPER)[entry]
    y = np.full((m, n), np.nan, np.float32)
    steps, slices = [int(len(x_scale) > 1), int(len(w_scale) > 1)], -(-k // depth) if depth else 1
    parts = np.zeros((slices, m, n), np.int32) if slices > 1 else None
    args = [x, weight, x_scale, w_scale, bias, y, parts, m, n, k, *steps, depth or -(-k // 128) * 128]
    grid = (-(-m // rows) * -(-n // columns), slices, 1)
    options = {"shared": stages * (rows + columns) * 128, "reverse": reverse, "count": count}
    banks = emulated[entry].launch(entry, grid, (threads, 1, 1), args, out=[y] if parts is None else [parts], **options)
    if parts is not None:
        args = [parts, x_scale, w_scale, bias, y, slices, m, n, *steps]
        emulated["w8a8_sum"].launch("w8a8_sum", (-(-m * n // 256), 1, 1), (256, 1, 1), args, out=[y])
    return y, banks


@pytest.mark.parametrize("entry", [*ENTRIES, *HOPPER])
@pytest.mark.parametrize("given", [each for each in cases() if each.args[0].shape[1] < 2**16] + TILES, ids=str)
def test_agrees_with_the_oracle(emulated: dict[str, Emulated], entry: str, given: Case) -> None:
    expected = given.oracle(*given.args)
    got, _ = run(emulated, entry, given, reverse=given.bytes % 2 == 1)
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("entry", [*ENTRIES, *HOPPER])
@pytest.mark.parametrize("many", [False, True])
def test_slices_of_k(emulated: dict[str, Emulated], entry: str, many: bool) -> None:
    """The same bits, however K is cut; the last slice is a short one."""
    given = case(17, 5, 600, many=many, biased=many)
    for depth in (128, 256):
        assert np.array_equal(run(emulated, entry, given, depth)[0], given.oracle(*given.args))


@pytest.mark.parametrize("entry", ENTRIES)
def test_bank_conflicts(emulated: dict[str, Emulated], entry: str) -> None:
    rows, columns, *_ = ENTRIES[entry]
    _, banks = run(emulated, entry, case(rows, columns, 256), count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts == 0


def test_every_instance_is_covered(emulated: dict[str, Emulated]) -> None:
    assert sorted(emulated) == sorted([*ENTRIES, *HOPPER, "w8a8_sum"])
