"""8-bit integers times 8-bit integers: cuda/gemm/w8a8.cu."""

from __future__ import annotations

import math
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, empty, exported, view
from subbyte.cuda.gemm.split import split
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError

__all__ = ["w8a8"]

# rows and columns of a tile, threads, stages of the entries
TILES = {"w8a8_m16": (16, 64, 128, 4), "w8a8_m128": (128, 128, 256, 3)}
DEPTH, SUM_THREADS = 128, 256


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
    m, n, k = check(seen, *others, addend)
    name = "w8a8_m16" if m <= 16 else "w8a8_m128"
    rows, columns, threads, stages = TILES[name]
    y = empty(x, seen.framework, (m, n), "float32")
    blocks = math.ceil(m / rows) * math.ceil(n / columns)
    if blocks == 0:
        return y
    result, steps = exported("y", y), [int(scale.shape[0] > 1) for scale in others[1:]]
    slices, depth = split(blocks, k, driver.multiprocessors(seen.device), DEPTH)
    parts = exported("parts", empty(x, seen.framework, (slices, m, n), "int32")) if slices > 1 else None
    arrays, numbers = [seen, *others, addend, result, parts], [m, n, k, *steps, depth]
    shared = stages * (rows + columns) * DEPTH
    start("w8a8", name, seen, (blocks, slices), threads, arrays, numbers, shared=shared, stream=stream)
    if parts is not None:
        grid, arrays = (math.ceil(m * n / SUM_THREADS), 1), [parts, *others[1:], addend, result]
        start("w8a8", "w8a8_sum", seen, grid, SUM_THREADS, arrays, [slices, m, n, *steps], stream=stream)
    return y


def check(x: View, weight: View, x_scale: View, w_scale: View, bias: View | None) -> tuple[int, int, int]:
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
