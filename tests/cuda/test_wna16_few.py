"""cuda/gemm/wna16_few.cu and gather.cu on the CPU, beside NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.cuda.test_emulated import DTYPES, POISON, add, pack
from tests.cuda.test_wna16_mma import expected, inputs_of
from tests.emulator import Banks, Emulated

# M, N, K, group: one row and column, odd everywhere, groups of several chunks and of a part of one, more columns than a
# stretch holds, rows of words that no wide load may begin at.
SHAPES_FEW = [(1, 1, 1, 1), (3, 5, 7, 7), (2, 33, 256, 128), (8, 3, 72, 72), (5, 33, 2304, 256), (16, 66, 640, 128)]
SHAPES_NARROW = [(1, 3, 32, 32), (7, 34, 96, 32), (3, 5, 2112, 64), (11, 65, 160, 32)]
BITS = (2, 3, 4, 8)
CASES = [(bits, 4, shape) for bits in BITS for shape in SHAPES_FEW]
CASES += [(bits, 1, shape) for bits in (4, 8) for shape in SHAPES_NARROW]


def run(
    emulated: Emulated,
    summed: Emulated | None,
    bits: int,
    eights: int,
    inputs: list,
    order: np.ndarray | None = None,
    depth: int | None = None,
    **options: bool | int,
) -> tuple[np.ndarray, Banks]:
    x, codes, scale, zero = inputs
    (m, k), n = x.shape, codes.shape[0]
    name = {dtype: name for name, dtype in DTYPES.items()}[x.dtype]
    tokens = 8 if m <= 8 else 16
    stretch = 4096 // tokens * (2 if bits == 8 else 4)
    y, depth = np.full((m, n), POISON, np.uint16), depth or -(-k // 512) * 512
    slices = -(-k // depth)
    parts = np.zeros((slices, m, n), np.float32) if slices > 1 else None
    halves = [x.view(np.uint16), pack(codes, bits), scale.view(np.uint16)]
    args = [*halves, zero, order, y, parts, m, n, k, k // scale.shape[1], depth]
    grid, shared = (-(-n // (4 * tokens)), slices, 1), m * (stretch * 2 + 64)
    entry = f"wna16_few_w{bits}_{name}_e{eights}_m{tokens}"
    out = [y] if parts is None else [parts]
    banks = emulated.launch(entry, grid, (256, 1, 1), args, out=out, shared=shared, **options)
    if parts is not None:
        assert summed is not None
        add(summed, parts, y, name)
    assert not (y == POISON).any()
    return y.view(x.dtype), banks


def gather(emulated: Emulated, x: np.ndarray, order: np.ndarray) -> np.ndarray:
    y = np.zeros(x.shape, np.uint16)
    args = [x.view(np.uint16), order, y, *x.shape]
    emulated.launch("gather", (-(-x.size // 256), 1, 1), (256, 1, 1), args, out=[y])
    return y.view(x.dtype)


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("wna16_few")


@pytest.mark.parametrize(("dtype", "zeros"), [("f16", "asym"), ("bf16", "sym")])
@pytest.mark.parametrize(("bits", "eights", "shape"), CASES, ids=str)
def test_agrees_with_numpy(
    emulated: Emulated, bits: int, eights: int, dtype: str, zeros: str, shape: tuple[int, int, int, int]
) -> None:
    inputs = inputs_of(bits, DTYPES[dtype], zeros, shape)
    inputs[2] = inputs[2] / DTYPES[dtype].type(16)  # so that no sum is beyond f16
    y, bound = expected(*inputs, bits)
    got, _ = run(emulated, None, bits, eights, inputs, reverse=shape[0] % 2 == 0)
    error = abs(got.astype(np.float64) - y)
    assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("m", [2, 9])
def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated], m: int) -> None:
    """Slices begin and end within a group, and the last is a short one."""
    inputs = inputs_of(4, DTYPES["f16"], "asym", (m, 5, 1280, 640))
    y, bound = expected(*inputs, 4)
    got, _ = run(emulated, emulate("sum"), 4, 4, inputs, depth=512)
    assert (abs(got.astype(np.float64) - y) <= bound).all()


@pytest.mark.parametrize("m", [3, 10])
def test_order_of_the_columns(emulated: Emulated, emulate: Callable[[str], Emulated], m: int) -> None:
    """The same bits as with columns laid out anew."""
    inputs = inputs_of(4, DTYPES["bf16"], "asym", (m, 7, 256, 128))
    order = np.random.default_rng(m).permutation(256).astype(np.uint32)
    got, _ = run(emulated, None, 4, 4, inputs, order)
    x = np.ascontiguousarray(inputs[0][:, order])
    assert np.array_equal(got, run(emulated, None, 4, 4, [x, *inputs[1:]])[0])
    assert np.array_equal(gather(emulate("gather"), inputs[0], order), x)


@pytest.mark.parametrize("beyond", [256, 2**31, 2**32 - 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_order_with_what_is_no_column(
    emulated: Emulated, emulate: Callable[[str], Emulated], dtype: str, beyond: int
) -> None:
    """Nothing strays, and no result passes for one: all are NaN, also where the weight is zero."""
    inputs = inputs_of(4, DTYPES[dtype], "asym", (3, 7, 256, 128))
    inputs[1][:, 5] = inputs[3][:, 0]
    order = np.arange(256, dtype=np.uint32)
    order[5] = beyond
    assert np.isnan(run(emulated, None, 4, 4, inputs, order)[0]).all()
    gathered = gather(emulate("gather"), inputs[0], order)
    assert np.isnan(gathered[:, 5]).all()
    assert np.array_equal(np.delete(gathered, 5, axis=1), np.delete(inputs[0], 5, axis=1))


@pytest.mark.parametrize("offset", [4, 8])
def test_arrays_that_no_wide_load_may_begin_at(emulated: Emulated, offset: int) -> None:
    inputs = inputs_of(4, DTYPES["f16"], "asym", (3, 5, 128, 128))
    assert np.array_equal(run(emulated, None, 4, 4, inputs, offset=offset)[0], run(emulated, None, 4, 4, inputs)[0])


def test_rows_do_not_touch(emulated: Emulated) -> None:
    inputs = inputs_of(4, DTYPES["f16"], "asym", (8, 35, 128, 128))
    clean, _ = run(emulated, None, 4, 4, inputs)
    inputs[0][5, 39] = np.nan
    got, _ = run(emulated, None, 4, 4, inputs)
    assert np.isnan(got[5]).all()
    assert np.array_equal(np.delete(got, 5, axis=0), np.delete(clean, 5, axis=0))
    assert np.array_equal(run(emulated, None, 4, 4, [inputs[0][7:8], *inputs[1:]])[0][0], clean[7])


@pytest.mark.parametrize(("bits", "eights"), [(2, 4), (3, 4), (4, 4), (8, 4), (4, 1), (8, 1)])
@pytest.mark.parametrize("m", [8, 16])
def test_bank_conflicts(emulated: Emulated, bits: int, eights: int, m: int) -> None:
    """None where x is read, which is in the loop; storing an eight of one lane beside that of another costs some."""
    inputs = inputs_of(bits, DTYPES["f16"], "sym", (m, 64, 512, 128))
    _, banks = run(emulated, None, bits, eights, inputs, count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts <= 0.5 * banks.wavefronts, banks


def test_every_instance_is_covered(emulated: Emulated) -> None:
    assert len(emulated.entries) == len({case[:2] for case in CASES}) * len(DTYPES) * 2
