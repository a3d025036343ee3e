"""8-bit integers times 4-bit codes of two levels: cuda/gemm/w4a8.cu."""

from __future__ import annotations

from typing import Any

from subbyte.cuda.arrays import View, view
from subbyte.cuda.gemm.scaled import DEPTH, Tile, expect_scales, product
from subbyte.errors import ShapeError

__all__ = ["w4a8"]

FEW, MANY = Tile("w4a8_m16", 16, 64, 128, 6), Tile("w4a8_m128", 128, 128, 256, 3)
LANE = 16  # columns of one lane, which have one level


def w4a8(
    x: Any,
    words: Any,
    x_scale: Any,
    w_scale: Any,
    level: Any | None = None,
    zero: Any | None = None,
    group: int = -1,
    bias: Any | None = None,
    *,
    stream: object = None,
) -> Any:
    """8-bit activations times 4-bit weights: y = (x W^T) * x_scale * w_scale + bias, W = level * (code - zero).

    x        [M, K] i8, K below 2 ** 17, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    words    [N, ceil(K / 8)] i32, codes in layout "dense"
    x_scale  [M] or [1] f32
    w_scale  [N] or [1] f32
    level    [N, K / group] u8, or None: 1
    zero     [N, K / group] u8, or None: 8
    group    a multiple of 16, or all of K
    bias     [N] f32, or None
    stream   as in `wna16`
    returns  [M, N] f32, framework and device of x

    int8 tensor cores (cuda/gemm/w4a8.cu); the bits of the CPU, as long as W is within -128 to 127. Raises as `wna16`
    does.
    """
    seen, codes = view("x", x), view("words", words)
    of_x, of_w = view("x_scale", x_scale), view("w_scale", w_scale)
    levels = None if level is None else view("level", level)
    zeros = None if zero is None else view("zero", zero)
    addend = None if bias is None else view("bias", bias)
    sizes = check(seen, codes, of_x, of_w, levels, zeros, addend, group)
    operands, scales = [seen, codes, levels, zeros], [of_x, of_w, addend]
    return product("w4a8", (FEW, MANY), x, operands, scales, list(sizes), (DEPTH, DEPTH // 2), stream)


def check(
    x: View,
    words: View,
    x_scale: View,
    w_scale: View,
    level: View | None,
    zero: View | None,
    bias: View | None,
    group: int,
) -> tuple[int, int, int, int]:
    """M, N, K and the group of arguments that fit together; raises what w4a8 raises."""
    x.expect("i8")
    words.expect("i32", beside=x)
    for codes in (x, words):
        if len(codes.shape) != 2:
            raise ShapeError(codes.what, codes.shape, "[rows, K]" if codes is x else "[N, ceil(K / 8)]")
    (m, k), n = x.shape, words.shape[0]
    if words.shape[1] != (k + 7) // 8:
        raise ShapeError("words", words.shape, f"[N, {(k + 7) // 8}] for K = {k}")
    if group == -1:
        group = max(k, 1)
    if group < 1 or k % group or (group % LANE and group != k and k):
        raise ShapeError("group", group, f"a divisor of K = {k} and a multiple of {LANE}, or -1 for all of it")
    for parameters in (level, zero):
        if parameters is not None:
            parameters.expect("u8", beside=x)
            if parameters.shape != (n, k // group):
                raise ShapeError(parameters.what, parameters.shape, f"({n}, {k // group}) for groups of {group}")
    if len(w_scale.shape) == 2:
        hint = "scales of groups are multiplied on the CPU only: pass it CPU arrays, or whole numbers as `level`"
        raise ShapeError("w_scale", w_scale.shape, f"({n},) or (1,) on CUDA", hint)
    expect_scales(x, k, (x_scale, m), (w_scale, n), bias)
    return m, n, k, group
