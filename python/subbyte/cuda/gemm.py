"""GEMMs on CUDA arrays: cuda/gemm/*.cu under the names and conventions of subbyte.kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, empty, exported, view
from subbyte.cuda.start import start
from subbyte.errors import DtypeError, RangeError, ShapeError, UnknownNameError

__all__ = ["fp8", "w8a8", "wna16"]

TILE, THREADS = 64, 256  # of cuda/gemm/wna16.cu
MMA_BITS, MMA_COLUMNS, MMA_DEPTH, MMA_STAGES = (2, 3, 4, 8), 128, 64, 4  # of cuda/gemm/wna16_mma.cu
SLICE = 512  # columns of K below which another slice costs more than it brings
FP8_FORMATS, FP8_COLUMNS, FP8_BLOCK, FP8_STAGES = ("e4m3fn", "e5m2"), 128, 128, 3  # of cuda/gemm/fp8.cu
# rows and columns of a tile, threads, stages of the entries of cuda/gemm/w8a8.cu
W8A8 = {"w8a8_m16": (16, 64, 128, 4), "w8a8_m128": (128, 128, 256, 3)}


def wna16(
    x: Any, words: Any, scale: Any, zero: Any | None, bits: int, group: int = -1, *, stream: object = None
) -> Any:
    """16-bit activations times low-bit weights: y[.., n] = sum_k x[.., k] * scale[n, g] * (code[n, k] - zero[n, g]).

    x        [..., K] f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    words    [N, ceil(K * bits / 32)] i32, codes in layout "dense"
    scale    [N, K / group], dtype of x
    zero     [N, K / group] u8; or dtype of x, where the tensor cores serve; or None: 2 ** (bits - 1)
    bits     1 to 8
    group    columns that share a scale, a divisor of K; -1: all K
    stream   where it runs: None is the framework's current stream; else as in `launch`, and then x must be ready there
    returns  [..., N], framework, dtype and device of x

    Tensor cores (cuda/gemm/wna16_mma.cu) serve 2, 3, 4 and 8 bits in groups of a multiple of 32 or all of K; for the
    rest there is cuda/gemm/wna16.cu. f32 inside, one rounding at the end (bounds: their heads); returns before the
    result is there, except for JAX, whose streams nobody else can wait for. Raises DtypeError, ShapeError, StrideError,
    DeviceError, RangeError before anything is allocated, DriverError or DependencyError where there is no working
    driver or no cuda-python.
    """
    seen = view("x", x)
    others = view("words", words), view("scale", scale), None if zero is None else view("zero", zero)
    problem = check(seen, *others, bits, group)
    y = empty(x, seen.framework, (*seen.shape[:-1], problem.n))
    if problem.blocks == 0:
        return y
    arrays = [seen, problem.words, problem.scale, problem.zero, exported("y", y)]
    numbers = [problem.m, problem.n, problem.k, problem.group]
    if problem.rows == 0:
        start("wna16", problem.entry, seen, (problem.blocks, 1), THREADS, arrays, numbers, stream=stream)
        return y
    slices, depth = split(problem.blocks, problem.k, driver.multiprocessors(seen.device))
    parts = None
    if slices > 1:
        parts = exported("parts", empty(x, seen.framework, (slices, problem.m, problem.n), "float32"))
    grid = problem.blocks, slices
    arrays, numbers = [*arrays, parts], [*numbers, depth]
    shared = MMA_STAGES * MMA_DEPTH * (2 * problem.rows + MMA_COLUMNS * bits // 8)
    start("wna16_mma", problem.entry, seen, grid, THREADS, arrays, numbers, shared=shared, stream=stream)
    if parts is not None:
        grid = math.ceil(problem.m * problem.n / THREADS), 1
        entry, numbers = f"wna16_mma_sum_{seen.dtype}", [slices, problem.m, problem.n]
        start("wna16_mma", entry, seen, grid, THREADS, [parts, arrays[4]], numbers, stream=stream)
    return y


def w8a8(x: Any, weight: Any, x_scale: Any, w_scale: Any, bias: Any | None = None, *, stream: object = None) -> Any:
    """8-bit activations times 8-bit weights: y = (x weight^T) * x_scale * w_scale + bias, the bits of the CPU.

    x        [M, K] i8, K below 2 ** 17, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    weight   [N, K] i8
    x_scale  [M] or [1] f32
    w_scale  [N] or [1] f32
    bias     [N] f32, or None
    stream   as in `wna16`
    returns  [M, N] f32, framework and device of x

    int8 tensor cores (cuda/gemm/w8a8.cu). Raises as `wna16` does.
    """
    seen = view("x", x)
    others = view("weight", weight), view("x_scale", x_scale), view("w_scale", w_scale)
    addend = None if bias is None else view("bias", bias)
    m, n, k = check_w8a8(seen, *others, addend)
    name = "w8a8_m16" if m <= 16 else "w8a8_m128"
    rows, columns, threads, stages = W8A8[name]
    y = empty(x, seen.framework, (m, n), "float32")
    blocks = math.ceil(m / rows) * math.ceil(n / columns)
    if blocks == 0:
        return y
    arrays = [seen, *others, addend, exported("y", y)]
    numbers = [m, n, k, *(int(scale.shape[0] > 1) for scale in others[1:])]
    shared = stages * (rows + columns) * 128
    start("w8a8", name, seen, (blocks, 1), threads, arrays, numbers, shared=shared, stream=stream)
    return y


def fp8(
    x: Any,
    weight: Any,
    x_scale: Any,
    w_scale: Any,
    format: str = "e4m3fn",
    bias: Any | None = None,
    *,
    stream: object = None,
) -> Any:
    """8-bit floats times 8-bit floats, scaled by block: y = sum_b (x weight^T)_b * x_scale_b * w_scale_b + bias.

    x        [M, K] u8, codes of `format`, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    weight   [N, K] u8
    x_scale  [R, B] f32: R is 1, M or ceil(M / 128); B is 1 or ceil(K / 128)
    w_scale  [R, B] f32: R is 1, N or ceil(N / 128)
    format   "e4m3fn" or "e5m2"
    bias     [N] f32, or None
    stream   as in `wna16`
    returns  [M, N] f32, framework and device of x

    f16 tensor cores (cuda/gemm/fp8.cu, which states the bound). Raises UnknownNameError (format), else as `wna16` does.
    """
    seen = view("x", x)
    others = view("weight", weight), view("x_scale", x_scale), view("w_scale", w_scale)
    addend = None if bias is None else view("bias", bias)
    m, n, k, *grids = check_fp8(seen, *others, format, addend)
    rows = 16 if m <= 16 else 64
    y = empty(x, seen.framework, (m, n), "float32")
    blocks = math.ceil(m / rows) * math.ceil(n / FP8_COLUMNS)
    if blocks == 0:
        return y
    arrays = [seen, *others, addend, exported("y", y)]
    shared = FP8_STAGES * (rows + FP8_COLUMNS) * FP8_BLOCK
    entry, numbers = f"fp8_{format}_m{rows}", [m, n, k, *grids]
    start("fp8", entry, seen, (blocks, 1), THREADS, arrays, numbers, shared=shared, stream=stream)
    return y


def split(tiles: int, k: int, multiprocessors: int) -> tuple[int, int]:
    """Slices of K and their length, so that few tiles still occupy all multiprocessors, two blocks on each.

    >>> split(tiles=32, k=4096, multiprocessors=132), split(tiles=512, k=4096, multiprocessors=132)
    ((8, 512), (1, 4096))
    """
    slices = max(1, min(2 * multiprocessors // max(tiles, 1), k // SLICE))
    depth = max(1, math.ceil(k / slices / MMA_DEPTH)) * MMA_DEPTH
    return max(1, math.ceil(k / depth)), depth


@dataclass(frozen=True)
class Problem:
    """Arguments of wna16 that fit together; `rows` of a tile on tensor cores, 0 without them."""

    words: View
    scale: View
    zero: View | None
    m: int
    n: int
    k: int
    group: int
    entry: str
    rows: int

    @property
    def blocks(self) -> int:
        """One for each tile of the result."""
        rows, columns = (self.rows, MMA_COLUMNS) if self.rows else (TILE, TILE)
        return math.ceil(self.m / rows) * math.ceil(self.n / columns)


def check(x: View, words: View, scale: View, zero: View | None, bits: int, group: int) -> Problem:
    """The arguments of wna16, checked; raises what wna16 raises."""
    if not 1 <= bits <= 8:
        raise RangeError("bits", bits, "1 to 8")
    x.expect("f16", "bf16")
    words.expect("i32", beside=x)
    scale.expect(x.dtype, beside=x)
    if zero is not None:
        zero.expect("u8", x.dtype, beside=x)
    if not x.shape:
        raise ShapeError("x", "a scalar", "[..., K]")
    if len(words.shape) != 2:
        raise ShapeError("words", words.shape, "[N, ceil(K * bits / 32)]")
    k, n, m = x.shape[-1], words.shape[0], math.prod(x.shape[:-1])
    if group == -1:
        group = max(k, 1)
    if group < 1 or k % group:
        raise ShapeError("group", group, f"a divisor of K = {k}, or -1 for all of it")
    parameters = (n, k // group)
    for given, expected in ((words, (n, (k * bits + 31) // 32)), (scale, parameters), (zero, parameters)):
        if given is not None and given.shape != expected:
            raise ShapeError(given.what, given.shape, f"{expected} for K = {k}, {bits} bits, groups of {group}")
    kind = "sym" if zero is None else "asym" if zero.dtype == "u8" else "float"
    if bits in MMA_BITS and (group % 32 == 0 or group == k):
        rows = 16 if m <= 16 else 64
        entry = f"wna16_mma_w{bits}_{x.dtype}_{kind}_m{rows}"
    else:
        rows, entry = 0, f"wna16_w{bits}_{x.dtype}_{kind}"
        if kind == "float":
            hint = "round the zero points, or use 2, 3, 4 or 8 bits and groups of a multiple of 32"
            raise DtypeError("zero", zero.dtype if zero else "", f"u8 for {bits} bits in groups of {group}", hint)
    problem = Problem(words, scale, zero, m, n, k, group, entry, rows)
    if max(m, n, k, problem.blocks) >= 2**31:
        raise RangeError("x and words", f"M, N, K = {m}, {n}, {k}", "each, and the tiles of the result, below 2^31")
    return problem


def check_w8a8(x: View, weight: View, x_scale: View, w_scale: View, bias: View | None) -> tuple[int, int, int]:
    """M, N and K of arguments that fit together; raises what w8a8 raises."""
    for codes in (x, weight):
        codes.expect("i8", beside=x)
        if len(codes.shape) != 2:
            raise ShapeError(codes.what, codes.shape, "[rows, K]")
    (m, k), n = x.shape, weight.shape[0]
    if weight.shape[1] != k:
        raise ShapeError("weight", weight.shape, f"[N, {k}], as x")
    if k >= 2**17:
        raise RangeError("K", k, "below 2^17, so that an int32 holds every sum")
    for given, rows in ((x_scale, m), (w_scale, n), (bias, n)):
        if given is None:
            continue
        given.expect("f32", beside=x)
        if given.shape not in ((rows,), (1,)) or (given is bias and given.shape != (n,)):
            raise ShapeError(given.what, given.shape, f"({rows},)" + ("" if given is bias else " or (1,)"))
    if max(m, n) >= 2**31 or math.ceil(m / 16) * math.ceil(n / 64) >= 2**31:
        raise RangeError("x and weight", f"M, N = {m}, {n}", "each, and the tiles of the result, below 2^31")
    return m, n, k


def check_fp8(
    x: View, weight: View, x_scale: View, w_scale: View, format: str, bias: View | None
) -> tuple[int, int, int, int, int, int, int, int, int]:
    """M, N, K, then for either scale its rows, its blocks and how many rows share one; raises what fp8 raises."""
    if format not in FP8_FORMATS:
        raise UnknownNameError("format", repr(format), f"one of {', '.join(FP8_FORMATS)}")
    for codes in (x, weight):
        codes.expect("u8", beside=x)
        if len(codes.shape) != 2:
            raise ShapeError(codes.what, codes.shape, "[rows, K]")
    (m, k), n = x.shape, weight.shape[0]
    if weight.shape[1] != k:
        raise ShapeError("weight", weight.shape, f"[N, {k}], as x")
    grids = []
    for given, rows in ((x_scale, m), (w_scale, n)):
        given.expect("f32", beside=x)
        tall, wide = math.ceil(rows / FP8_BLOCK), math.ceil(k / FP8_BLOCK)
        if len(given.shape) != 2 or given.shape[0] not in (1, rows, tall) or given.shape[1] not in (1, wide):
            raise ShapeError(given.what, given.shape, f"1, {tall} or {rows} rows of 1 or {wide} scales")
        grids += [*given.shape, 1 if given.shape[0] == rows else FP8_BLOCK]
    if bias is not None:
        bias.expect("f32", beside=x)
        if bias.shape != (n,):
            raise ShapeError("bias", bias.shape, f"({n},)")
    if max(m, n, k, math.ceil(m / 16) * math.ceil(n / FP8_COLUMNS)) >= 2**31:
        raise RangeError("x and weight", f"M, N, K = {m}, {n}, {k}", "each, and the tiles of the result, below 2^31")
    x_rows, x_blocks, x_tall, w_rows, w_blocks, w_tall = grids
    return m, n, k, x_rows, x_blocks, x_tall, w_rows, w_blocks, w_tall
