"""16-bit floats times low-bit weights of experts: cuda/gemm/wna16_grouped.cu."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, empty, exported, view
from subbyte.cuda.gemm.experts import expect_experts, row_tiles
from subbyte.cuda.gemm.split import add, split
from subbyte.cuda.gemm.tuned import fitting
from subbyte.cuda.gemm.wna16 import MMA_BITS, THREADS, Tile, mma
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError

__all__ = ["wna16_grouped"]


def wna16_grouped(
    x: Any,
    words: Any,
    scale: Any,
    zero: Any | None,
    offsets: Any,
    bits: int,
    group: int = -1,
    rows: Any | None = None,
    *,
    stream: object = None,
) -> Any:
    """`wna16` with a weight for each expert of a mixture: y[r] = x[rows[r]] W_e^T, e the expert that has row r.

    x        [T, K] f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    words    [E, N, ceil(K * bits / 32)] i32, codes in layout "dense"
    scale    [E, N, K / group], dtype of x
    zero     [E, N, K / group] u8, or None: 2 ** (bits - 1)
    offsets  [E + 1] i32, from 0 to R, never falling; if they are none, all of y is NaN
    bits     2, 3, 4 or 8
    group    columns that share a scale, a multiple of 32 that divides K, or all of K; -1: all K
    rows     [R] i32, or None: all of x; what is no row of x makes its row of y NaN
    stream   as in `wna16`
    returns  [R, N], framework, dtype and device of x

    One launch for all experts, on tensor cores, without a look at offsets and rows: graphs can hold it, whatever the
    router will choose (cuda/gemm/wna16_grouped.cu, which states the bound). Raises as `wna16` does.
    """
    seen, codes, scales = view("x", x), view("words", words), view("scale", scale)
    zeros, order = None if zero is None else view("zero", zero), None if rows is None else view("rows", rows)
    starts = view("offsets", offsets)
    problem = check(seen, codes, scales, zeros, starts, order, bits, group)
    r, n, k, tile = problem.r, problem.n, problem.k, problem.tile
    y = empty(x, seen.framework, (r, n))
    if problem.blocks == 0:
        return y
    result = exported("y", y)
    slices, depth = split(problem.blocks, k, driver.multiprocessors(seen.device), tile.depth)
    parts = exported("parts", empty(x, seen.framework, (slices, r, n), "float32")) if slices > 1 else None
    arrays = [seen, codes, scales, zeros, starts, order, result, parts]
    numbers = [seen.shape[0], problem.experts, r, n, k, problem.group, depth]
    entry = f"wna16_grouped_w{bits}_{seen.dtype}_{'sym' if zeros is None else 'asym'}_m{tile.rows}"
    grid, shared = (problem.blocks, slices), tile.shared(r)
    start("wna16_grouped", entry, seen, grid, THREADS, arrays, numbers, shared=shared, stream=stream)
    if parts is not None:
        add(parts, result, stream)
    return y


@dataclass(frozen=True)
class Problem:
    """Sizes of arguments of wna16_grouped that fit together, and the tile that is to compute them."""

    experts: int
    r: int
    n: int
    k: int
    group: int
    tile: Tile

    @property
    def tiles(self) -> int:
        """Tiles of rows that there can be, however the rows lie on the experts."""
        return row_tiles(self.r, self.experts, self.tile.rows)

    @property
    def blocks(self) -> int:
        """One for each tile of rows and of columns."""
        return self.tiles * math.ceil(self.n / self.tile.columns)


def check(
    x: View, words: View, scale: View, zero: View | None, offsets: View, rows: View | None, bits: int, group: int
) -> Problem:
    """The arguments of wna16_grouped, checked; raises what wna16_grouped raises."""
    if bits not in MMA_BITS:
        raise RangeError("bits", bits, "2, 3, 4 or 8 on CUDA", "move all arguments to the CPU")
    x.expect("f16", "bf16")
    words.expect("i32", beside=x)
    scale.expect(x.dtype, beside=x)
    if len(x.shape) != 2:
        raise ShapeError("x", x.shape, "[T, K]")
    if len(words.shape) != 3:
        raise ShapeError("words", words.shape, "[E, N, ceil(K * bits / 32)]")
    (tokens, k), (experts, n, _) = x.shape, words.shape
    if group == -1:
        group = max(k, 1)
    if group < 1 or k % group or (group % 32 and group != k and k):
        raise ShapeError("group", group, f"a multiple of 32 that divides K = {k}, or -1 for all of it")
    parameters = (experts, n, k // group)
    for given, expected in ((words, (experts, n, (k * bits + 31) // 32)), (scale, parameters), (zero, parameters)):
        if given is not None and given.shape != expected:
            raise ShapeError(given.what, given.shape, f"{expected} for K = {k}, {bits} bits, groups of {group}")
    if zero is not None:
        zero.expect("u8", beside=x)
    r = expect_experts(x, words, offsets, rows)
    # By what an expert has on average: with fewer rows most of a taller tile would be empty.
    problem = Problem(experts, r, n, k, group, mma(fitting((16, 64), math.ceil(r / max(experts, 1))), bits))
    if max(tokens, experts * n, k, r + problem.tiles * problem.tile.rows, problem.blocks) >= 2**31:
        sizes = f"T, E, R, N, K = {tokens}, {experts}, {r}, {n}, {k}"
        raise RangeError("x and words", sizes, "each, E N, and the tiles of the result, below 2^31")
    return problem
