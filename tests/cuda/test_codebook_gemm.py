"""cuda/gemm/codebook_gemm.cu on the CPU, beside NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from subbyte import kernels
from subbyte.cuda.gemm.codebook_gemm import STEPS, check, nibbles
from subbyte.errors import RangeError, ShapeError
from tests.cuda.test_emulated import DTYPES, POISON, add
from tests.cuda.test_loader import on_gpu
from tests.emulator import Banks, Emulated
from tests.oracles.codebook_gemm import decoded

# M, N, K: one code, odd everywhere, several tiles of rows, rows that no wide load may begin at, more than a stretch.
SHAPES = [(1, 1, 8), (3, 33, 72), (8, 3, 256), (17, 5, 136), (16, 66, 640), (2, 3, 2184)]


def inputs_of(shape: tuple[int, int, int], bits: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    m, n, k = shape
    rng = np.random.default_rng([*shape, bits])
    words = rng.integers(-(2**31), 2**31, (n, -(-k * bits // 32))).astype(np.int32)
    return rng.standard_normal((m, k)).astype(dtype), words


def expected(x: np.ndarray, words: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """The product, and its bound: roundings of f32 on the sum of magnitudes of both stages, and one of the dtype."""
    weight = decoded(words, x.shape[1], bits, None, None)
    wide, magnitude = x.astype(np.float64), abs(weight) + (0 if bits == 2 else 2 * 2.75)
    y, step = wide @ weight.T, 2.0**-11 if x.dtype == np.float16 else 2.0**-8
    exact = (x.shape[1] + 3) * 2.0**-23 * (abs(wide) @ magnitude.T)
    return y, exact + (abs(y) + exact) * step + 2.0**-25


def run(
    emulated: Emulated,
    x: np.ndarray,
    words: np.ndarray,
    bits: int,
    summed: Emulated | None = None,
    depth: int = 0,
    **options: bool,
) -> tuple[np.ndarray, Banks]:
    (m, k), n = x.shape, len(words)
    name = {dtype: name for name, dtype in DTYPES.items()}[x.dtype]
    tokens = 8 if m <= 8 else 16
    y, depth = np.full((m, n), POISON, np.uint16), depth or -(-k // 512) * 512
    slices = -(-k // depth)
    parts = np.zeros((slices, m, n), np.float32) if slices > 1 else None
    args = [x.view(np.uint16), words.view(np.uint32), nibbles(), y, parts, m, n, k, depth, STEPS[bits]]
    grid = (-(-m // tokens) * -(-n // (4 * tokens)), slices, 1)
    shared = min(m, tokens) * (4096 // tokens * 4 * 2 + 64)
    entry, out = f"codebook_gemm_e8p{bits}_{name}_m{tokens}", [y] if parts is None else [parts]
    banks = emulated.launch(entry, grid, (256, 1, 1), args, out=out, shared=shared, **options)
    if summed is not None and parts is not None:
        add(summed, parts, y, name)
    return y.view(x.dtype), banks


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("codebook_gemm")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_numpy(emulated: Emulated, shape: tuple[int, int, int], bits: int, dtype: str) -> None:
    x, words = inputs_of(shape, bits, DTYPES[dtype])
    y, bound = expected(x, words, bits)
    got, _ = run(emulated, x, words, bits, reverse=shape[0] % 2 == 0)
    error = abs(got.astype(np.float64) - y)
    assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_codeword_is_exact(emulated: Emulated, dtype: str) -> None:
    """All 65536, a column of x at a time."""
    codes = np.arange(2**16, dtype=np.uint32).reshape(256, 256)
    words = np.ascontiguousarray(codes.astype("<u2")).view("<u4").view(np.int32)
    x = np.zeros((8, 2048), DTYPES[dtype])
    x[np.arange(8), 1000 + np.arange(8)] = 1
    got, _ = run(emulated, x, words, 2)
    assert np.array_equal(got.T, kernels.e8p_decode(codes[:, 125:126].astype(np.uint16)))


def test_tables_hold_what_the_cpu_decodes() -> None:
    high, low, second = nibbles()
    codes, shifts = np.arange(2**16, dtype=np.uint32), np.arange(0, 32, 4, dtype=np.uint32)
    values = ((high[codes >> 8] ^ low[codes & 255])[:, None] >> shifts & 15) / 2 - 3.75
    assert np.array_equal(values, kernels.e8p_decode(codes[:, None].astype(np.uint16)))
    stages = (second[:, None] >> shifts & 15) / 2 - 4.0
    got = kernels.e8p_decode((np.arange(256) << 16).astype(np.int32)[:, None], 3)
    np.testing.assert_allclose(values[0] + stages / 2.04, got, rtol=0, atol=1e-6)


@pytest.mark.parametrize("m", [2, 9])
def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated], m: int) -> None:
    x, words = inputs_of((m, 5, 1160), 3, DTYPES["f16"])
    y, bound = expected(x, words, 3)
    got, _ = run(emulated, x, words, 3, emulate("sum"), depth=512)
    assert (abs(got.astype(np.float64) - y) <= bound).all()


def test_rows_do_not_touch(emulated: Emulated) -> None:
    x, words = inputs_of((18, 5, 128), 2, DTYPES["f16"])
    clean, _ = run(emulated, x, words, 2)
    x[17, 39] = np.nan
    got, _ = run(emulated, x, words, 2)
    assert np.isnan(got[17]).all()
    assert np.array_equal(got[:17], clean[:17])


def test_bank_conflicts(emulated: Emulated) -> None:
    """Look-ups are at random places: eight copies of the tables keep them below two of each other, stores included."""
    x, words = inputs_of((8, 32, 512), 2, DTYPES["f16"])
    _, banks = run(emulated, x, words, 2, count=True)
    assert banks.conflicts <= 0.6 * banks.wavefronts, banks


def test_every_instance_is_covered(emulated: Emulated) -> None:
    assert len(emulated.entries) == 3 * len(DTYPES) * 2


def test_what_is_refused() -> None:
    x, words = on_gpu("x", (3, 64), "f16", 2), on_gpu("words", (5, 4), "i32", 4)
    assert check(x, words, 2, None) == check(x, words, 2, 5) == (3, 5, 64)
    with pytest.raises(RangeError, match="bits: given 5"):
        check(x, words, 5, None)
    for wrong in ((x, words, 3, None), (x, words, 2, 4), (on_gpu("x", (3, 60), "f16", 2), words, 2, None)):
        with pytest.raises(ShapeError):
            check(*wrong)
