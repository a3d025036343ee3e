"""cuda/gemm/fp8.cu on the CPU, beside the oracle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.cuda.test_emulated import add
from tests.emulator import Banks, Emulated
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import magnitude
from tests.oracles.fp8 import case, cases

ROWS = (16, 64)


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("fp8")


def run(
    emulated: Emulated, given: Case, rows: int, summed: Emulated | None = None, depth: int = 0, **options: bool
) -> tuple[np.ndarray, Banks]:
    x, weight, x_scale, w_scale, format, bias = given.args
    m, n, k = len(x), len(weight), x.shape[1]
    y = np.zeros((m, n), np.float32)
    grids = [(*scale.shape, 1 if len(scale) == count else 128) for scale, count in ((x_scale, m), (w_scale, n))]
    slices = -(-k // depth) if depth else 1
    parts = np.zeros((slices, m, n), np.float32) if slices > 1 else None
    args = [x, weight, x_scale, w_scale, bias, y, parts, m, n, k, *grids[0], *grids[1], depth or -(-k // 128) * 128]
    grid, shared = (-(-m // rows) * -(-n // 128), slices, 1), 3 * (rows + 128) * 128
    entry, out = f"fp8_{format}_m{rows}", [y] if parts is None else [parts]
    banks = emulated.launch(entry, grid, (256, 1, 1), args, out=out, shared=shared, **options)
    if summed is not None and parts is not None:
        add(summed, parts, y)
    return y, banks


@pytest.mark.parametrize("given", cases(), ids=str)
def test_agrees_with_the_oracle(emulated: Emulated, given: Case) -> None:
    expected = given.oracle(*given.args)
    for rows in ROWS:
        got, _ = run(emulated, given, rows, reverse=rows == 64)
        assert (abs(got - expected) <= given.bound).all()


def test_more_stages_than_the_ring_holds(emulated: Emulated) -> None:
    given = case(2, 9, 1100, (1, 128), (128, 128))
    got, _ = run(emulated, given, 16)
    assert (abs(got - given.oracle(*given.args)) <= given.bound).all()


@pytest.mark.parametrize("biased", [False, True])
def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated], biased: bool) -> None:
    given = case(3, 9, 600, (1, 128), (128, 128), biased=biased)
    got, _ = run(emulated, given, 16, emulate("sum"), depth=256)
    assert (abs(got - given.oracle(*given.args)) <= given.bound).all()


@pytest.mark.parametrize("format", ["e4m3fn", "e5m2"])
def test_every_code(emulated: Emulated, format: str) -> None:
    """Products with one: subnormals and zeros exactly, NaN and infinity in their rows alone."""
    x, one = np.arange(256, dtype=np.uint8)[:, None], 0x38 if format == "e4m3fn" else 0x3C
    scale = np.ones((1, 1), np.float32)
    got, _ = run(emulated, Case("", (x, np.full((9, 1), one, np.uint8), scale, scale, format, None), {}, lambda: 0), 64)
    want = np.float32([(-1) ** (code >> 7) * magnitude(code & 127, format) for code in range(256)])
    np.testing.assert_array_equal(got, np.broadcast_to(want[:, None], got.shape))


@pytest.mark.parametrize("rows", ROWS)
def test_bank_conflicts(emulated: Emulated, rows: int) -> None:
    _, banks = run(emulated, case(rows, 128, 128), rows, count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts == 0


def test_every_instance_is_covered(emulated: Emulated) -> None:
    assert len(emulated.entries) == 2 * len(ROWS)
