"""8-bit floats times 8-bit floats, scaled by block: cuda/gemm/fp8.cu."""

from __future__ import annotations

import math
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, view
from subbyte.cuda.gemm.float8 import COLUMNS, block, expect_bias, product
from subbyte.cuda.gemm.tuned import choose
from subbyte.errors import RangeError, ShapeError, UnknownNameError

__all__ = ["fp8"]

FORMATS, BLOCK = ("e4m3fn", "e5m2"), 128


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

    f16 tensor cores (cuda/gemm/fp8.cu, which states the bound); on sm_90a from 17 rows on those for 8-bit floats, which
    sum less exactly (cuda/gemm/fp8_sm90a.cu, likewise). Raises UnknownNameError (format), else as `wna16` does.
    """
    seen = view("x", x)
    others = view("weight", weight), view("x_scale", x_scale), view("w_scale", w_scale)
    addend = None if bias is None else view("bias", bias)
    m, n, k, *grids = check(seen, *others, format, addend)
    rows, slices = choose("fp8", seen.device, (m, n, k))
    entry = block("fp8", format, rows, wgmma=driver.hopper(seen.device))
    operands, sizes, blocks = [seen, *others, addend], [m, n, k, *grids], math.ceil(m / rows) * math.ceil(n / COLUMNS)
    return product(entry, x, operands, (m, n), k, blocks, sizes, stream, slices=slices)


def check(
    x: View, weight: View, x_scale: View, w_scale: View, format: str, bias: View | None
) -> tuple[int, int, int, int, int, int, int, int, int]:
    """M, N, K, then for either scale its rows, its blocks and how many rows share one; raises what fp8 raises."""
    if format not in FORMATS:
        raise UnknownNameError("format", repr(format), f"one of {', '.join(FORMATS)}")
    for codes in (x, weight):
        codes.expect("u8", beside=x)
        if len(codes.shape) != 2:
            raise ShapeError(codes.what, codes.shape, "[rows, K]")
    (m, k), n = x.shape, weight.shape[0]
    if weight.shape[1] != k:
        raise ShapeError("weight", weight.shape, f"[N, {k}], as x")
    grids = [*grid(x_scale, m, k, x), *grid(w_scale, n, k, x)]
    expect_bias(bias, x, (n,))
    if max(m, n, k, math.ceil(m / 16) * math.ceil(n / COLUMNS)) >= 2**31:
        raise RangeError("x and weight", f"M, N, K = {m}, {n}, {k}", "each, and the tiles of the result, below 2^31")
    x_rows, x_blocks, x_tall, w_rows, w_blocks, w_tall = grids
    return m, n, k, x_rows, x_blocks, x_tall, w_rows, w_blocks, w_tall


def grid(given: View, rows: int, k: int, beside: View, experts: tuple[int, ...] = ()) -> tuple[int, int, int]:
    """Rows and blocks of scales for [rows, K] codes, of each expert if there are some, and how many rows share one."""
    given.expect("f32", beside=beside)
    tall, wide, axes = math.ceil(rows / BLOCK), math.ceil(k / BLOCK), len(experts)
    shape = given.shape[axes:]
    if given.shape[:axes] != experts or len(shape) != 2 or shape[0] not in (1, rows, tall) or shape[1] not in (1, wide):
        of = "".join(f" for each of {count} experts" for count in experts)
        raise ShapeError(given.what, given.shape, f"1, {tall} or {rows} rows of 1 or {wide} scales{of}")
    return *shape, 1 if shape[0] == rows else BLOCK
