"""8-bit integers times 8-bit integers: cuda/gemm/w8a8.cu."""

from __future__ import annotations

from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, view
from subbyte.cuda.gemm.scaled import DEPTH, Tile, expect_scales, product
from subbyte.errors import ShapeError

__all__ = ["w8a8"]

FEW, MANY = Tile("w8a8_m16", 16, 64, 128, 4), Tile("w8a8_m128", 128, 128, 256, 3)
#: What sm_90a has instead for many rows.
HOPPER = (
    Tile("w8a8_sm90a_m64", 64, 128, 128, 4, of_hopper=True),
    Tile("w8a8_sm90a_m128", 128, 128, 256, 4, together=1, of_hopper=True),
)


def w8a8(x: Any, weight: Any, x_scale: Any, w_scale: Any, bias: Any | None = None, *, stream: object = None) -> Any:
    """8-bit activations times 8-bit weights: y = (x weight^T) * x_scale * w_scale + bias, the bits of the CPU.

    x        [M, K] i8, K below 2 ** 17, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    weight   [N, K] i8
    x_scale  [M] or [1] f32
    w_scale  [N] or [1] f32
    bias     [N] f32, or None
    stream   as in `wna16`
    returns  [M, N] f32, framework and device of x

    int8 tensor cores (cuda/gemm/w8a8.cu; on sm_90a from 17 rows on w8a8_sm90a.cu). Raises as `wna16` does.
    """
    seen = view("x", x)
    others = view("weight", weight), view("x_scale", x_scale), view("w_scale", w_scale)
    addend = None if bias is None else view("bias", bias)
    m, n, k = check(seen, *others, addend)
    scales = [*others[1:], addend]
    tiles = (FEW, *HOPPER) if driver.hopper(seen.device) else (FEW, MANY)
    return product("w8a8", tiles, x, [seen, others[0]], scales, [m, n, k], (DEPTH, DEPTH), stream)


def check(x: View, weight: View, x_scale: View, w_scale: View, bias: View | None) -> tuple[int, int, int]:
    """M, N and K of arguments that fit together; raises what w8a8 raises."""
    for codes in (x, weight):
        codes.expect("i8", beside=x)
        if len(codes.shape) != 2:
            raise ShapeError(codes.what, codes.shape, "[rows, K]")
    (m, k), n = x.shape, weight.shape[0]
    if weight.shape[1] != k:
        raise ShapeError("weight", weight.shape, f"[N, {k}], as x")
    expect_scales(x, k, (x_scale, m), (w_scale, n), bias)
    return m, n, k
