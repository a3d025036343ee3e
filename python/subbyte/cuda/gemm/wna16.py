"""16-bit floats times low-bit weights: cuda/gemm/wna16*.cu, of which the shape chooses one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, empty, exported, view
from subbyte.cuda.gemm.split import add, split
from subbyte.cuda.start import start
from subbyte.errors import DtypeError, RangeError, ShapeError

__all__ = ["wna16"]

THREADS, MMA_BITS, MOST_FEW = 256, (2, 3, 4, 8), 16


@dataclass(frozen=True)
class Tile:
    """What a block of an entry computes, and what the launch of it needs.

    kernel    the file in cuda/gemm
    rows      of the result; columns of it; depth: of K, a slice is a multiple of it, 0 if K is never cut
    shared    bytes of dynamic shared memory for M rows of x
    """

    kernel: str
    rows: int
    columns: int
    depth: int
    shared: Callable[[int], int]


def plain() -> Tile:
    """cuda/gemm/wna16.cu: every width and group."""
    return Tile("wna16", 64, 64, 0, lambda m: 0)


def mma(rows: int, bits: int) -> Tile:
    """cuda/gemm/wna16_mma.cu: four stages of both operands, 64 columns of K each."""
    return Tile("wna16_mma", rows, 128, 64, lambda m: 4 * 64 * (2 * rows + 128 * bits // 8))


def few(tokens: int, bits: int) -> Tile:
    """cuda/gemm/wna16_few.cu: a stretch of each row of x, and 64 bytes that keep rows in different banks."""
    along = 32 // tokens
    stretch = along * 128 * (2 if bits > 4 else 4)
    return Tile("wna16_few", tokens, tokens * 4, along * 128, lambda m: m * (stretch * 2 + 64))


def wna16(
    x: Any,
    words: Any,
    scale: Any,
    zero: Any | None,
    bits: int,
    group: int = -1,
    order: Any | None = None,
    *,
    stream: object = None,
) -> Any:
    """16-bit activations times low-bit weights: y = x[.., order] W^T, W = scale[n, g] * (code[n, k] - zero[n, g]).

    x        [..., K] f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    words    [N, ceil(K * bits / 32)] i32, codes in layout "dense"
    scale    [N, K / group], dtype of x
    zero     [N, K / group] u8; or dtype of x, where the tensor cores serve; or None: 2 ** (bits - 1)
    bits     1 to 8
    group    columns that share a scale, a divisor of K; -1: all K
    order    [K] i32, or None: k. The host does not look at its values: what is no column of x makes all of y NaN
    stream   where it runs: None is the framework's current stream; else as in `launch`, and then x must be ready there
    returns  [..., N], framework, dtype and device of x

    Tensor cores serve 2, 3, 4 and 8 bits in groups of a multiple of 32 or all of K: cuda/gemm/wna16_mma.cu, and for up
    to 16 rows cuda/gemm/wna16_few.cu; for the rest there is cuda/gemm/wna16.cu. f32 inside, one rounding at the end
    (bounds: their heads); returns before the result is there, except for JAX, whose streams nobody else can wait for.
    Raises DtypeError, ShapeError, StrideError, DeviceError, RangeError before anything is allocated, DriverError or
    DependencyError where there is no working driver or no cuda-python.
    """
    seen = view("x", x)
    zeros, columns = None if zero is None else view("zero", zero), None if order is None else view("order", order)
    problem = check(seen, view("words", words), view("scale", scale), zeros, columns, bits, group)
    m, n, k, tile = problem.m, problem.n, problem.k, problem.tile
    y = empty(x, seen.framework, (*seen.shape[:-1], n))
    if problem.blocks == 0:
        return y
    given, ordered = seen, problem.order
    if ordered is not None and tile.kernel != "wna16_few":
        given = exported("gathered", empty(x, seen.framework, (m, k)))
        start(
            "gather",
            "gather",
            seen,
            (math.ceil(m * k / THREADS), 1),
            THREADS,
            [seen, ordered, given],
            [m, k],
            stream=stream,
        )
    arrays = [given, problem.words, problem.scale, problem.zero]
    if tile.kernel == "wna16_few":
        arrays.append(ordered)
    arrays.append(result := exported("y", y))
    numbers, slices, parts = [m, n, k, problem.group], 1, None
    if tile.depth:
        slices, depth = split(problem.blocks, k, driver.multiprocessors(seen.device), tile.depth)
        if slices > 1:
            parts = exported("parts", empty(x, seen.framework, (slices, m, n), "float32"))
        arrays, numbers = [*arrays, parts], [*numbers, depth]
    grid, shared = (problem.blocks, slices), tile.shared(m)
    start(tile.kernel, problem.entry, seen, grid, THREADS, arrays, numbers, shared=shared, stream=stream)
    if parts is not None:
        add(parts, result, stream)
    return y


@dataclass(frozen=True)
class Problem:
    """Arguments of wna16 that fit together, and the entry that is to compute them."""

    words: View
    scale: View
    zero: View | None
    order: View | None
    m: int
    n: int
    k: int
    group: int
    entry: str
    tile: Tile

    @property
    def blocks(self) -> int:
        """One for each tile of the result."""
        return math.ceil(self.m / self.tile.rows) * math.ceil(self.n / self.tile.columns)


def check(x: View, words: View, scale: View, zero: View | None, order: View | None, bits: int, group: int) -> Problem:
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
    if order is not None:
        order.expect("i32", beside=x)
        if order.shape != (k,):
            raise ShapeError("order", order.shape, f"({k},)")
    entry, tile = choose(m, k, bits, group, x.dtype, zero)
    problem = Problem(words, scale, zero, order, m, n, k, group, entry, tile)
    if max(m, n, k, problem.blocks, math.ceil(m * k / THREADS) if order is not None else 0) >= 2**31:
        raise RangeError("x and words", f"M, N, K = {m}, {n}, {k}", "each, and the tiles of the result, below 2^31")
    return problem


def choose(m: int, k: int, bits: int, group: int, dtype: str, zero: View | None) -> tuple[str, Tile]:
    """The entry for a shape, and its tile."""
    kind = "sym" if zero is None else "asym" if zero.dtype == "u8" else "float"
    wide, narrow = group % 128 == 0 or group == k, bits % 4 == 0 and group % 32 == 0
    if bits in MMA_BITS and m <= MOST_FEW and kind != "float" and (wide or narrow):
        tokens = 8 if m <= 8 else 16
        return f"wna16_few_w{bits}_{dtype}_e{4 if wide else 1}_m{tokens}", few(tokens, bits)
    if bits in MMA_BITS and (group % 32 == 0 or group == k):
        rows = 16 if m <= 16 else 64
        return f"wna16_mma_w{bits}_{dtype}_{kind}_m{rows}", mma(rows, bits)
    if zero is not None and kind == "float":
        hint = "round the zero points, or use 2, 3, 4 or 8 bits and groups of a multiple of 32"
        raise DtypeError("zero", zero.dtype, f"u8 for {bits} bits in groups of {group}", hint)
    return f"wna16_w{bits}_{dtype}_{kind}", plain()
