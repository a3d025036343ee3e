"""The arithmetic of the CUDA kernels, run on the CPU (tests/emulator) and compared with NumPy."""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np
import pytest

from tests.emulator import Emulated, compiled

DTYPES = {"f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
# M, N, K, group: ones, within a tile, exactly a tile, odd everywhere, several tiles, groups across steps of K.
SHAPES = [
    (1, 1, 1, 1),
    (3, 5, 7, 7),
    (64, 64, 32, 32),
    (17, 65, 96, 32),
    (65, 70, 130, 13),
    (2, 3, 64, 1),
    (1, 130, 200, 8),
]
POISON = 0x7E7E  # a pattern that nothing here results in


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Rows of codes as endless little-endian bit streams: one Python integer a row."""
    words = -(-codes.shape[1] * bits // 32)
    rows = [sum(int(code) << (bits * k) for k, code in enumerate(row)).to_bytes(4 * words, "little") for row in codes]
    return np.frombuffer(b"".join(rows), "<u4").reshape(len(codes), words).copy()


def problem(bits: int, dtype: np.dtype, asym: bool, shape: tuple[int, int, int, int]) -> list:
    m, n, k, group = shape
    rng = np.random.default_rng([bits, m, n, k])
    x = rng.normal(size=(m, k)) * np.where(rng.random((m, k)) < 0.02, 30, 1)  # with outliers, as activations have
    codes = rng.integers(0, 2**bits, (n, k))
    scale = rng.uniform(0.5, 1.5, (n, k // group)) * 2.0 ** rng.integers(-6, 2, (n, k // group))
    zero = rng.integers(0, 2**bits, (n, k // group)).astype(np.uint8) if asym else None
    return [x.astype(dtype), codes, scale.astype(dtype), zero]


def expected(x: np.ndarray, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, bits: int) -> tuple:
    """The result and its bound: K roundings of f32 on the sum of magnitudes, and half a step of the result's dtype."""
    group = codes.shape[1] // scale.shape[1]
    shift = np.repeat(np.full(scale.shape, 2 ** (bits - 1)) if zero is None else zero.astype(int), group, axis=1)
    weight = np.repeat(scale.astype(np.float64), group, axis=1) * (codes - shift)
    wide = x.astype(np.float64)
    y = wide @ weight.T
    step = {np.dtype(np.float16): (2.0**-11, 2.0**-25)}.get(x.dtype, (2.0**-8, 2.0**-134))
    exact = codes.shape[1] * 2.0**-24 * (abs(wide) @ abs(weight).T)
    return y, exact + (abs(y) + exact) * step[0] + step[1]


def run(emulated: Emulated, bits: int, inputs: list, reverse: bool = False) -> np.ndarray:
    x, codes, scale, zero = inputs
    (m, k), n = x.shape, codes.shape[0]
    name = {dtype: name for name, dtype in DTYPES.items()}[x.dtype]
    y = np.full((m, n), POISON, np.uint16)
    group = k // scale.shape[1]
    args = [x.view(np.uint16), pack(codes, bits), scale.view(np.uint16), zero, y, m, n, k, group]
    blocks = -(-m // 64) * -(-n // 64)
    entry = f"wna16_w{bits}_{name}_{'sym' if zero is None else 'asym'}"
    emulated.launch(entry, (blocks, 1, 1), (256, 1, 1), args, out=[y], reverse=reverse)
    assert not (y == POISON).any()
    return y.view(x.dtype)


def add(summed: Emulated, parts: np.ndarray, y: np.ndarray, dtype: str = "f32") -> None:
    """Launches cuda/gemm/sum.cu on what the slices of K have left, [slices, M, N], as subbyte.cuda.gemm.split does."""
    grid = (-(-y.size // 256), 1, 1)
    summed.launch(f"sum_{dtype}", grid, (256, 1, 1), [parts, y, *parts.shape], out=[y])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("asym", [False, True], ids=["sym", "asym"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("bits", range(1, 9))
def test_wna16_agrees_with_numpy(
    emulated: Emulated, bits: int, dtype: np.dtype, asym: bool, shape: tuple[int, int, int, int]
) -> None:
    inputs = problem(bits, dtype, asym, shape)
    y, bound = expected(*inputs, bits)
    got = run(emulated, bits, inputs)
    error = abs(got.astype(np.float64) - y)
    assert (error <= bound).all(), (error / bound).max()
    assert np.array_equal(got.view(np.uint16), run(emulated, bits, inputs, reverse=True).view(np.uint16))


def test_every_instance_is_covered(emulated: Emulated) -> None:
    assert len(emulated.entries) == 8 * 2 * 2


def test_wna16_rows_do_not_touch(emulated: Emulated) -> None:
    """NaN and infinity stay in their row, and a row is the same bits alone and in a batch."""
    inputs = problem(4, DTYPES["f16"], True, (67, 66, 40, 8))
    clean = run(emulated, 4, inputs)
    inputs[0][5, 39], inputs[0][66, 0] = np.nan, np.inf
    got = run(emulated, 4, inputs)
    assert np.isnan(got[5]).all()
    assert not np.isfinite(got[66]).any()
    others = np.delete(np.arange(67), [5, 66])
    assert np.array_equal(got[others], clean[others])
    assert np.array_equal(run(emulated, 4, [inputs[0][7:8], *inputs[1:]])[0], clean[7])


def test_wna16_extremes(emulated: Emulated) -> None:
    """No code of weight, all of one sign, and a sum beyond f16: zero, exact, infinite."""
    ones = np.ones((2, 32), np.float16)
    top = np.full((3, 32), 255)
    for zero, scale, result in ((255, 1.0, 0.0), (0, 1.0, 255 * 32), (0, 64.0, np.inf)):
        inputs = [ones, top, np.full((3, 1), scale, np.float16), np.full((3, 1), zero, np.uint8)]
        assert (run(emulated, 8, inputs) == np.float16(result)).all()


@pytest.fixture(scope="module")
def convert(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    code = '#include "common/convert.cuh"\n' + "".join(
        f"""extern "C" void widen_{name}(const {kind}* x, float* y, size_t n) {{ for (; n--;) y[n] = widen(x[n]); }}
extern "C" void narrow_{name}(const float* x, {kind}* y, size_t n) {{ for (; n--;) narrow(x[n], y[n]); }}
"""
        for name, kind in (("f16", "F16"), ("bf16", "BF16"))
    )
    return compiled(code, tmp_path_factory.mktemp("convert"))


def converted(function: ctypes._CFuncPtr, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    y = np.empty(x.shape, dtype)
    function(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), ctypes.c_size_t(x.size))
    return y


@pytest.mark.parametrize("name", DTYPES)
def test_twins_of_the_casts(convert: ctypes.CDLL, name: str) -> None:
    """Every 16-bit code widens as in NumPy; every code, midpoint and f32 beside one narrows as NumPy rounds."""
    codes = np.arange(2**16, dtype=np.uint16)
    wide = converted(getattr(convert, f"widen_{name}"), codes, np.dtype(np.float32))
    np.testing.assert_array_equal(wide, codes.view(DTYPES[name]).astype(np.float32))
    with np.errstate(all="ignore"):
        finite = wide[np.isfinite(wide)].astype(np.float64)
        middle = ((np.sort(finite)[1:] + np.sort(finite)[:-1]) / 2).astype(np.float32)
        beyond = np.array(
            [65504, 65519.996, 65520, 65536, 1e30, 3.4028235e38, np.inf, 1e-45, 2**-25, 2**-24], np.float32
        )
        edges = np.concatenate([wide, middle, beyond, -beyond])
        x = np.concatenate([edges, np.nextafter(edges, np.float32(np.inf)), np.nextafter(edges, np.float32(-np.inf))])
        got = converted(getattr(convert, f"narrow_{name}"), x, np.dtype(np.uint16))
        want = x.astype(DTYPES[name]).view(np.uint16)
    nan = np.isnan(x)
    np.testing.assert_array_equal(got[~nan], want[~nan])
    assert (got[nan] == 0x7FFF).all()
