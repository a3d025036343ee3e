"""cuda/gemm/block_scaled.cu on the CPU, beside NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from subbyte import kernels
from subbyte.cuda.gemm.block_scaled import ELEMENTS, SCALES, check
from subbyte.errors import RangeError, ShapeError, UnknownNameError
from tests.cuda.test_emulated import DTYPES, POISON, add
from tests.cuda.test_loader import on_gpu
from tests.emulator import Banks, Emulated
from tests.oracles.block_scaled import case, decoded
from tests.oracles.case import Case
from tests.oracles.dequantize_block import BLOCKS

# M, N, K: one block, odd everywhere, several tiles of rows, rows that no wide load may begin at, more than a stretch.
SHAPES = [(1, 1, 32), (3, 33, 96), (17, 5, 160), (16, 66, 512), (2, 3, 2080)]


def run(
    emulated: Emulated, given: Case, dtype: str, summed: Emulated | None = None, depth: int = 0, **options: bool
) -> tuple[np.ndarray, np.ndarray, Banks]:
    """The result, x in that dtype, and the banks."""
    x, (words, scale) = given.args[0].astype(DTYPES[dtype]), given.args[1:]
    element, block, scale_dtype, tensor_scale = given.kwargs.values()
    (m, k), n, tokens = x.shape, len(words), 8 if len(x) <= 8 else 16
    y, depth = np.full((m, n), POISON, np.uint16), depth or -(-k // 512) * 512
    slices = -(-k // depth)
    parts = np.zeros((slices, m, n), np.float32) if slices > 1 else None
    numbers = [m, n, k, block, SCALES.index(scale_dtype), depth, float(tensor_scale)]
    args = [x.view(np.uint16), words.view(np.uint32), scale, y, parts, *numbers]
    stretch = 4096 // tokens * (2 if ELEMENTS[element] > 4 else 4)
    grid, shared = (-(-m // tokens) * -(-n // (4 * tokens)), slices, 1), min(m, tokens) * (stretch * 2 + 64)
    entry, out = f"block_scaled_{element}_{dtype}_m{tokens}", [y] if parts is None else [parts]
    banks = emulated.launch(entry, grid, (256, 1, 1), args, out=out, shared=shared, **options)
    if summed is not None and parts is not None:
        add(summed, parts, y, dtype)
    return y.view(x.dtype), x, banks


def compare(got: np.ndarray, x: np.ndarray, given: Case) -> None:
    weight, wide = decoded(*given.args[1:], x.shape[1], *given.kwargs.values()), x.astype(np.float64)
    y, step = wide @ weight.T, 2.0**-11 if x.dtype == np.float16 else 2.0**-8
    exact = (x.shape[1] + 4) * 2.0**-23 * (abs(wide) @ abs(weight).T)
    error, bound = abs(got.astype(np.float64) - y), exact + (abs(y) + exact) * step + 2.0**-25
    assert (error <= bound).all(), (error / bound).max()


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("block_scaled")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("block", "scale_dtype"), [*BLOCKS, (16, "e8m0")])
@pytest.mark.parametrize("element", ELEMENTS)
def test_agrees_with_numpy(emulated: Emulated, element: str, block: int, scale_dtype: str, dtype: str) -> None:
    for shape in SHAPES[:4] if block == 32 else [*SHAPES[1:2], (2, 3, 48)]:
        given = case(*shape, element, block, scale_dtype, tensor_scale=1 / 300)
        got, x, _ = run(emulated, given, dtype, reverse=shape[0] % 2 == 0)
        compare(got, x, given)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("element", ELEMENTS)
def test_every_code_is_exact(emulated: Emulated, element: str, dtype: str) -> None:
    """Infinities and NaN too, each in a row of its own, alone among zeros; in the eights of two lanes, across words."""
    bits = ELEMENTS[element]
    options = {"element": element, "block": 32, "scale_dtype": "e8m0", "tensor_scale": 1.0}
    for column in (5, 10):
        codes, x = np.zeros((1 << bits, 32), np.uint8), np.zeros((1, 32), np.float32)
        codes[:, column], x[0, column] = np.arange(1 << bits), 1
        words, scale = kernels.pack(codes, bits=bits), np.full((1 << bits, 1), 127, np.uint8)
        got, _, _ = run(emulated, Case("", (x, words, scale), options, lambda: 0), dtype)
        weight = decoded(words, scale, 32, *options.values())
        np.testing.assert_array_equal(got[0].astype(np.float64), weight[:, column])


@pytest.mark.parametrize("scale_dtype", SCALES)
def test_every_scale(emulated: Emulated, scale_dtype: str) -> None:
    """Each in a row of its own, of both blocks of a chunk; also NaN, which is of its row alone. Sums beyond f16 are not
    looked at, so bf16.
    """
    scale = np.stack([np.arange(256), np.full(256, 127 if scale_dtype == "e8m0" else 56)], axis=1).astype(np.uint8)
    words = np.full((256, 4), 0x22222222, np.int32)  # e2m1: 1
    x = np.zeros((2, 32), np.float32)
    x[0, 3] = x[1, 20] = 1
    options = {"element": "e2m1", "block": 16, "scale_dtype": scale_dtype, "tensor_scale": 1.0}
    given = Case("", (x, words, scale), options, lambda: 0)
    got, _, _ = run(emulated, given, "bf16")
    weight = decoded(words, scale, 32, *options.values())
    nan = np.isnan(weight[:, 3])
    assert np.isnan(got[:, nan]).all()
    np.testing.assert_array_equal(got[0, ~nan].astype(np.float64), weight[~nan, 3])
    assert (got[1, ~nan] == 1).all()


@pytest.mark.parametrize("m", [2, 9])
def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated], m: int) -> None:
    given = case(m, 5, 1120, "e2m1", 16, "e4m3fn")
    got, x, _ = run(emulated, given, "f16", emulate("sum"), depth=512)
    compare(got, x, given)


def test_rows_do_not_touch(emulated: Emulated) -> None:
    given = case(18, 5, 128, "e4m3fn")
    clean, _, _ = run(emulated, given, "f16")
    given.args[0][17, 39] = np.nan
    got, _, _ = run(emulated, given, "f16")
    assert np.isnan(got[17]).all()
    assert np.array_equal(got[:17], clean[:17])


def test_bank_conflicts(emulated: Emulated) -> None:
    _, _, banks = run(emulated, case(8, 64, 512, "e2m1"), "f16", count=True)
    assert banks.wavefronts > 100
    assert banks.conflicts <= 0.5 * banks.wavefronts, banks


def test_every_instance_is_covered(emulated: Emulated) -> None:
    assert len(emulated.entries) == len(ELEMENTS) * len(DTYPES) * 2


def test_what_is_refused() -> None:
    x, words = on_gpu("x", (3, 64), "f16", 2), on_gpu("words", (5, 8), "i32", 4)
    scale = on_gpu("scale", (5, 2), "u8", 1)
    assert check(x, words, scale, "e2m1", 32, "e8m0", 1.0) == (3, 5, 64)
    for options in (("e5m3", 32, "e8m0", 1.0), ("e2m1", 32, "f32", 1.0)):
        with pytest.raises(UnknownNameError):
            check(x, words, scale, *options)
    for options in (("e2m1", 64, "e8m0", 1.0), ("e2m1", 32, "e8m0", 0.0), ("e2m1", 32, "e8m0", float("nan"))):
        with pytest.raises(RangeError):
            check(x, words, scale, *options)
    for options in (("e4m3fn", 32, "e8m0", 1.0), ("e2m1", 16, "e8m0", 1.0)):
        with pytest.raises(ShapeError):
            check(x, words, scale, *options)
