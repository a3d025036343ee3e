"""8-bit floats times 8-bit floats of experts, scaled by block: cuda/gemm/fp8_grouped.cu."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, view
from subbyte.cuda.gemm.experts import expect_experts, row_tiles
from subbyte.cuda.gemm.float8 import COLUMNS, block, expect_bias, product
from subbyte.cuda.gemm.fp8 import FORMATS, grid
from subbyte.cuda.gemm.tuned import fitting
from subbyte.errors import RangeError, ShapeError, UnknownNameError

__all__ = ["fp8_grouped"]

#: Rows of the tiles: of fp8_grouped.cu, and on sm_90a, where those above 16 are of fp8_grouped_sm90a.cu.
TILES, HOPPER = (16, 64), (16, 64, 128)


def fp8_grouped(
    x: Any,
    weight: Any,
    x_scale: Any,
    w_scale: Any,
    offsets: Any,
    format: str = "e4m3fn",
    bias: Any | None = None,
    rows: Any | None = None,
    *,
    stream: object = None,
) -> Any:
    """`fp8` with a weight for each expert of a mixture: y[r] = fp8 of row rows[r] of x with expert e, which has row r.

    x        [T, K] u8, codes of `format`, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    weight   [E, N, K] u8
    x_scale  [S, B] f32: S is 1, T or ceil(T / 128); B is 1 or ceil(K / 128)
    w_scale  [E, S, B] f32: S is 1, N or ceil(N / 128)
    offsets  [E + 1] i32, from 0 to R, never falling; if they are none, all of y is NaN
    format   "e4m3fn" or "e5m2"
    bias     [E, N] f32, or None
    rows     [R] i32, or None: all of x; what is no row of x makes its row of y NaN
    stream   as in `wna16`
    returns  [R, N] f32, framework and device of x

    One launch for all experts without a look at offsets and rows, as `wna16_grouped` (cuda/gemm/fp8_grouped.cu, which
    states the bound; fp8_grouped_sm90a.cu on sm_90a for more than 16 rows an expert). Raises as `fp8` does.
    """
    seen, starts = view("x", x), view("offsets", offsets)
    others = view("weight", weight), view("x_scale", x_scale), view("w_scale", w_scale)
    addend, order = None if bias is None else view("bias", bias), None if rows is None else view("rows", rows)
    hopper = driver.hopper(seen.device)
    problem = check(seen, *others, starts, format, addend, order, HOPPER if hopper else TILES)
    r, n, k = problem.r, problem.n, problem.k
    numbers = [seen.shape[0], problem.experts, r, n, k, *problem.grids]
    arrays, entry = [seen, *others, starts, addend, order], block("fp8_grouped", format, problem.tall, wgmma=hopper)
    return product(entry, x, arrays, (r, n), k, problem.blocks, numbers, stream)


@dataclass(frozen=True)
class Problem:
    """Sizes of arguments of fp8_grouped that fit together, and the rows of the tile that is to compute them.

    grids  for either scale its rows, its blocks and how many rows share one
    """

    experts: int
    r: int
    n: int
    k: int
    grids: tuple[int, ...]
    tall: int

    @property
    def tiles(self) -> int:
        """Tiles of rows that there can be, however the rows lie on the experts."""
        return row_tiles(self.r, self.experts, self.tall)

    @property
    def blocks(self) -> int:
        """One for each tile of rows and of columns."""
        return self.tiles * math.ceil(self.n / COLUMNS)


def check(
    x: View,
    weight: View,
    x_scale: View,
    w_scale: View,
    offsets: View,
    format: str,
    bias: View | None,
    rows: View | None,
    tiles: tuple[int, ...] = TILES,
) -> Problem:
    """The arguments of fp8_grouped, checked, for tiles of these rows, ascending; raises what fp8_grouped raises."""
    if format not in FORMATS:
        raise UnknownNameError("format", repr(format), f"one of {', '.join(FORMATS)}")
    x.expect("u8")
    weight.expect("u8", beside=x)
    if len(x.shape) != 2:
        raise ShapeError("x", x.shape, "[T, K]")
    (tokens, k), axes = x.shape, weight.shape
    if len(axes) != 3 or axes[2] != k:
        raise ShapeError("weight", axes, f"[E, N, {k}], K as x")
    experts, n, _ = axes
    grids = *grid(x_scale, tokens, k, x), *grid(w_scale, n, k, x, (experts,))
    expect_bias(bias, x, (experts, n))
    r = expect_experts(x, weight, offsets, rows)
    # By what an expert has on average: with fewer rows most of a taller tile would be empty.
    tall = fitting(tiles, math.ceil(r / max(experts, 1)))
    problem = Problem(experts, r, n, k, grids, tall)
    if max(tokens, experts * n, k, r + problem.tiles * problem.tall, problem.blocks) >= 2**31:
        sizes = f"T, E, R, N, K = {tokens}, {experts}, {r}, {n}, {k}"
        raise RangeError("x and weight", sizes, "each, E N, and the tiles of the result, below 2^31")
    return problem
