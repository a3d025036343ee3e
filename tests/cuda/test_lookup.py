"""cuda/gemm/lookup.cu, lookup_few.cu and lookup_mma.cu on the CPU, beside NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from subbyte.cuda.gemm.lookup import check, choose
from subbyte.errors import DtypeError, RangeError, ShapeError
from tests.cuda.test_emulated import DTYPES, POISON, add
from tests.cuda.test_loader import on_gpu
from tests.emulator import Banks, Emulated
from tests.oracles.lookup import values

# M, N, K, group: those of few rows in wide groups and in narrow ones, of many rows, and what is left.
FEW = [(1, 1, 1, 1), (3, 5, 7, 7), (5, 33, 2304, 256), (16, 66, 640, 128)]
NARROW = [(1, 3, 32, 32), (7, 34, 96, 32), (11, 65, 160, 32)]
MANY = [(17, 130, 200, 200), (65, 70, 416, 32)]
REST = [(1, 1, 1, 1), (3, 5, 60, 12), (66, 65, 40, 8)]
BITS = (2, 3, 4, 8)
CASES = [(bits, shape) for bits in BITS for shape in FEW + MANY]
CASES += [(bits, shape) for bits in (4, 8) for shape in NARROW]
CASES += [(bits, shape) for bits in (1, 3, 5, 6, 7, 8) for shape in REST]
ROOM = 227 * 1024


def inputs_of(shape: tuple[int, int, int, int], bits: int, own: bool, dtype: str) -> list[np.ndarray]:
    m, n, k, group = shape
    rng = np.random.default_rng([*shape, bits])
    x, table = rng.standard_normal((m, k)), rng.standard_normal((n if own else 1, 2**bits))
    words = rng.integers(-(2**31), 2**31, (n, -(-k * bits // 32))).astype(np.int32)
    scale = rng.uniform(0.01, 0.1, (n, k // group))
    return [x.astype(DTYPES[dtype]), words, scale.astype(DTYPES[dtype]), table.astype(DTYPES[dtype])]


def expected(x: np.ndarray, words: np.ndarray, scale: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The product, and its bound: roundings of f32 on the sum of magnitudes, and one of the dtype."""
    weight, wide = values(words, scale, table, x.shape[1]), x.astype(np.float64)
    y, step = wide @ weight.T, 2.0**-11 if x.dtype == np.float16 else 2.0**-8
    exact = (x.shape[1] + 3) * 2.0**-23 * (abs(wide) @ abs(weight).T)
    return y, exact + (abs(y) + exact) * step + 2.0**-25


def run(
    emulate: Callable[[str], Emulated], inputs: list[np.ndarray], depth: int = 0, **options: bool | int
) -> tuple[np.ndarray, Banks]:
    """The entry that is chosen for the shape, launched as it is for a device."""
    x, words, scale, table = inputs
    (m, k), n, bits = x.shape, len(words), table.shape[1].bit_length() - 1
    name, group = {dtype: name for name, dtype in DTYPES.items()}[x.dtype], k // scale.shape[1]
    entry, tile = choose(m, k, bits, group, name, len(table) > 1, ROOM)
    y, parts, numbers, slices = np.full((m, n), POISON, np.uint16), None, [m, n, k, group], 1
    args = [x.view(np.uint16), words.view(np.uint32), scale.view(np.uint16), table.view(np.uint16), y]
    if tile.depth:
        depth = depth or -(-k // tile.depth) * tile.depth
        slices = -(-k // depth)
        parts = np.zeros((slices, m, n), np.float32) if slices > 1 else None
        args, numbers = [*args, parts], [*numbers, depth]
    else:
        numbers.append(2**bits if len(table) > 1 else 0)
    grid = (-(-m // tile.rows) * -(-n // tile.columns), slices, 1)
    out = [y] if parts is None else [parts]
    emulated = emulate(tile.kernel)
    banks = emulated.launch(entry, grid, (256, 1, 1), [*args, *numbers], out=out, shared=tile.shared(m), **options)
    if parts is not None:
        add(emulate("sum"), parts, y, name)
    assert not (y == POISON).any()
    return y.view(x.dtype), banks


@pytest.mark.parametrize(("own", "dtype"), [(False, "f16"), (True, "f16"), (False, "bf16"), (True, "bf16")])
@pytest.mark.parametrize(("bits", "shape"), CASES, ids=str)
def test_agrees_with_numpy(
    emulate: Callable[[str], Emulated], bits: int, shape: tuple[int, int, int, int], own: bool, dtype: str
) -> None:
    inputs = inputs_of(shape, bits, own, dtype)
    y, bound = expected(*inputs)
    got, _ = run(emulate, inputs, reverse=shape[0] % 2 == 0)
    error = abs(got.astype(np.float64) - y)
    assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("m", [16, 32])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_every_value_is_exact(emulate: Callable[[str], Emulated], bits: int, m: int, own: bool) -> None:
    """One column of x at a time reads the values themselves, subnormal ones too; infinite ones spread in their row."""
    _, words, scale, table = inputs_of((m, 40, 32, 32), bits, own, "f16")
    scale[:], table[:, 1], table[:, 2] = 1, np.inf, 2.0**-24
    inputs = [np.eye(m, 32, dtype=np.float16), words, scale, table]
    want = values(words, scale, table, 32).T
    finite = np.isfinite(want).all(axis=0)
    got, _ = run(emulate, inputs)
    assert np.array_equal(got[:, finite].astype(np.float64), want[:m, finite])
    assert not np.isfinite(got[:, ~finite]).any()


@pytest.mark.parametrize("m", [2, 9, 17])
def test_slices_of_k(emulate: Callable[[str], Emulated], m: int) -> None:
    """Slices begin and end within a group, and the last is a short one."""
    inputs = inputs_of((m, 5, 1280, 640), 4, True, "f16")
    y, bound = expected(*inputs)
    got, _ = run(emulate, inputs, depth=512)
    assert (abs(got.astype(np.float64) - y) <= bound).all()


@pytest.mark.parametrize("m", [8, 18])
def test_rows_do_not_touch(emulate: Callable[[str], Emulated], m: int) -> None:
    inputs = inputs_of((m, 35, 128, 128), 4, False, "f16")
    clean, _ = run(emulate, inputs)
    inputs[0][5, 39] = np.nan
    got, _ = run(emulate, inputs)
    assert np.isnan(got[5]).all()
    assert np.array_equal(np.delete(got, 5, axis=0), np.delete(clean, 5, axis=0))


@pytest.mark.parametrize("m", [8, 64])
@pytest.mark.parametrize(("bits", "own", "most"), [(4, False, 0.5), (4, True, 0.6), (8, False, 0.6), (8, True, 0.75)])
def test_bank_conflicts(emulate: Callable[[str], Emulated], bits: int, own: bool, most: float, m: int) -> None:
    """Look-ups are at random places: copies of one table keep them below two of each other, stores included."""
    _, banks = run(emulate, inputs_of((m, 64, 512, 128), bits, own, "f16"), count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts <= most * banks.wavefronts, banks


def test_every_instance_is_covered(emulate: Callable[[str], Emulated]) -> None:
    chosen = {
        choose(*shape[::2], bits, shape[3], dtype, own, ROOM)[0]
        for bits, shape in CASES + [(bits, REST[1]) for bits in (2, 4)]
        for dtype in DTYPES
        for own in (False, True)
    }
    assert chosen == {entry for name in ("lookup", "lookup_few", "lookup_mma") for entry in emulate(name).entries}


def test_a_card_with_little_shared_memory_takes_the_plain_kernel() -> None:
    assert choose(64, 4096, 8, 128, "f16", True, 99 * 1024)[0] == "lookup_w8_f16"
    assert choose(64, 4096, 4, 128, "f16", True, 99 * 1024)[0] == "lookup_mma_w4_f16_own"


def test_what_is_refused() -> None:
    x, words, scale = (
        on_gpu("x", (3, 64), "f16", 2),
        on_gpu("words", (5, 8), "i32", 4),
        on_gpu("scale", (5, 2), "f16", 2),
    )
    table = on_gpu("table", (5, 16), "f16", 2)
    assert check(x, words, scale, table, 32) == (3, 5, 64, 4, 32)
    for shape in ((5, 15), (4, 16), (16,), (1, 512), (1, 1)):
        with pytest.raises(ShapeError, match="table"):
            check(x, words, scale, on_gpu("table", shape, "f16", 2), 32)
    with pytest.raises(ShapeError, match="group"):
        check(x, words, scale, table, 24)
    with pytest.raises(ShapeError, match="words"):
        check(x, words, scale, on_gpu("table", (1, 8), "f16", 2), 32)
    with pytest.raises(DtypeError, match="table: given f32"):
        check(x, words, scale, on_gpu("table", (5, 16), "f32", 4), 32)
    with pytest.raises(RangeError):
        check(on_gpu("x", (2**31, 64), "f16", 2), words, scale, table, 32)
