"""cuda/gemm/wna16_mma.cu on the CPU, beside NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.cuda.test_emulated import DTYPES, POISON, SHAPES, add, pack, problem
from tests.emulator import Emulated

# M, N, K, group: one row and column, odd everywhere, rows of x that no copy may begin at, the edges of both tiles,
# groups of 32, 64, 128 and all of K, several stages and more than the ring holds.
SHAPES_MMA = [
    (1, 1, 1, 1),
    (3, 5, 7, 7),
    (5, 130, 200, 200),
    (16, 128, 128, 32),
    (17, 129, 192, 64),
    (65, 70, 416, 32),
    (2, 3, 640, 128),
]
BITS = (2, 3, 4, 8)
STAGES = 4
ZEROS = ("sym", "asym", "float")


def inputs_of(bits: int, dtype: np.dtype, zeros: str, shape: tuple[int, int, int, int]) -> list:
    x, codes, scale, zero = problem(bits, dtype, zeros == "asym", shape)
    if zeros == "float":
        rng = np.random.default_rng([bits, *shape])
        zero = rng.uniform(-1, 2**bits, scale.shape).astype(dtype)
    return [x, codes, scale, zero]


def expected(x: np.ndarray, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, bits: int) -> tuple:
    """The result and its bound, as the kernel's head states it, and half a step of the result's dtype."""
    group = codes.shape[1] // scale.shape[1]
    middle = 2.0 ** (bits - 1)
    shift = np.repeat(np.full(scale.shape, middle) if zero is None else zero.astype(np.float64), group, axis=1)
    wide, scales = x.astype(np.float64), np.repeat(scale.astype(np.float64), group, axis=1)
    y = wide @ (scales * (codes - shift)).T
    whole = zero is None or zero.dtype == np.uint8
    size = scales * (abs(codes - shift) if whole else abs(codes - middle) + abs(shift - middle))
    step = {np.dtype(np.float16): (2.0**-11, 2.0**-25)}.get(x.dtype, (2.0**-8, 2.0**-134))
    exact = (codes.shape[1] + 3) * 2.0**-23 * (abs(wide) @ size.T)
    return y, exact + (abs(y) + exact) * step[0] + step[1]


def run(
    emulated: Emulated,
    bits: int,
    inputs: list,
    rows: int = 16,
    summed: Emulated | None = None,
    depth: int | None = None,
    **options: bool | int,
) -> np.ndarray:
    x, codes, scale, zero = inputs
    (m, k), n = x.shape, codes.shape[0]
    name = {dtype: name for name, dtype in DTYPES.items()}[x.dtype]
    y = np.full((m, n), POISON, np.uint16)
    group = k // scale.shape[1]
    kind = "sym" if zero is None else "asym" if zero.dtype == np.uint8 else "float"
    depth = depth or -(-k // 64) * 64
    slices = -(-k // depth)
    parts = np.zeros((slices, m, n), np.float32) if slices > 1 else None
    halves = [x.view(np.uint16), pack(codes, bits), scale.view(np.uint16)]
    args = [*halves, zero if kind != "float" else zero.view(np.uint16), y, parts, m, n, k, group, depth]
    tiles = -(-m // rows) * -(-n // 128)
    shared = STAGES * (rows * 128 + 128 * 8 * bits)
    entry = f"wna16_mma_w{bits}_{name}_{kind}_m{rows}"
    out = [y] if parts is None else [y, parts]
    emulated.launch(entry, (tiles, slices, 1), (256, 1, 1), args, out=out, shared=shared, **options)
    if summed is not None and parts is not None:
        add(summed, parts, y, name)
    assert not (y == POISON).any()
    return y.view(x.dtype)


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("wna16_mma")


@pytest.mark.parametrize("shape", SHAPES_MMA, ids=str)
@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("bits", BITS)
def test_agrees_with_numpy(
    emulated: Emulated, bits: int, dtype: np.dtype, zeros: str, shape: tuple[int, int, int, int]
) -> None:
    inputs = inputs_of(bits, dtype, zeros, shape)
    y, bound = expected(*inputs, bits)
    for rows in (16, 64):
        got = run(emulated, bits, inputs, rows, reverse=rows == 64)
        error = abs(got.astype(np.float64) - y)
        assert (error <= bound).all(), (rows, (error / bound).max())


@pytest.mark.parametrize("depth", [64, 128, 192])
@pytest.mark.parametrize("zeros", ZEROS)
def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated], zeros: str, depth: int) -> None:
    """Slices begin and end within a group, and the last is a short one."""
    inputs = inputs_of(4, DTYPES["f16"], zeros, (3, 20, 512, 256))
    y, bound = expected(*inputs, 4)
    got = run(emulated, 4, inputs, summed=emulate("sum"), depth=depth)
    assert (abs(got.astype(np.float64) - y) <= bound).all()
    assert np.array_equal(got, run(emulated, 4, inputs, summed=emulate("sum"), depth=depth, reverse=True))


@pytest.mark.parametrize("offset", [4, 8])
def test_arrays_that_no_wide_copy_may_begin_at(emulated: Emulated, offset: int) -> None:
    """Words are aligned to four bytes, and so nothing more is asked for."""
    inputs = inputs_of(4, DTYPES["f16"], "asym", (3, 5, 128, 32))
    assert np.array_equal(run(emulated, 4, inputs, offset=offset), run(emulated, 4, inputs))


def test_every_instance_is_covered(emulated: Emulated) -> None:
    assert len(emulated.entries) == len(BITS) * len(DTYPES) * len(ZEROS) * 2


def test_rows_do_not_touch(emulated: Emulated) -> None:
    """NaN and infinity stay in their row, and a row is the same bits alone and in a batch."""
    inputs = inputs_of(4, DTYPES["f16"], "asym", (18, 66, 64, 32))
    clean = run(emulated, 4, inputs)
    inputs[0][5, 39], inputs[0][16, 0] = np.nan, np.inf
    got = run(emulated, 4, inputs)
    assert np.isnan(got[5]).all()
    assert not np.isfinite(got[16]).any()
    others = np.delete(np.arange(18), [5, 16])
    assert np.array_equal(got[others], clean[others])
    assert np.array_equal(run(emulated, 4, [inputs[0][7:8], *inputs[1:]])[0], clean[7])


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_zero_points_beyond_the_codes(emulated: Emulated, dtype: np.dtype) -> None:
    """Any u8 is a zero point, whatever the width of the codes: code - zero is still exact."""
    x = np.eye(16, 32).astype(dtype)
    codes = np.random.default_rng(2).integers(0, 4, (9, 32))
    inputs = [x, codes, np.ones((9, 1), dtype), np.full((9, 1), 255, np.uint8)]
    assert np.array_equal(run(emulated, 2, inputs).astype(int), codes.T[:16] - 255)


@pytest.mark.parametrize(("bits", "most"), [(2, 0), (3, 0.25), (4, 0), (8, 0)])
@pytest.mark.parametrize("rows", [16, 64])
def test_bank_conflicts(emulate: Callable[[str], Emulated], bits: int, rows: int, most: float) -> None:
    """None, but for three bits: rows of 24 bytes do not fall into step with the banks."""
    emulated = emulate("wna16_mma")
    x, codes, scale, zero = inputs_of(bits, DTYPES["f16"], "sym", (rows, 128, 256, 64))
    y = np.zeros((rows, 128), np.uint16)
    args = [x.view(np.uint16), pack(codes, bits), scale.view(np.uint16), zero, y, None, rows, 128, 256, 64, 256]
    entry, shared = f"wna16_mma_w{bits}_f16_sym_m{rows}", STAGES * (rows * 128 + 128 * 8 * bits)
    banks = emulated.launch(entry, (1, 1, 1), (256, 1, 1), args, out=[y], shared=shared, count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts <= most * banks.wavefronts, banks


def test_shapes_of_the_plain_kernel_are_no_others() -> None:
    assert all(shape[3] % 32 == 0 or shape[2] == shape[3] for shape in SHAPES_MMA)
    assert any(shape[3] % 32 and shape[2] != shape[3] for shape in SHAPES)
