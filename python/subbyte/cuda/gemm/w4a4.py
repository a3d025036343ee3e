"""4-bit codes times 4-bit codes, with outliers of 8 bits: cuda/gemm/w4a4.cu."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from subbyte.cuda.arrays import View, view
from subbyte.cuda.gemm import float8
from subbyte.cuda.gemm.scaled import Tile, product
from subbyte.cuda.gemm.tuned import fitting
from subbyte.errors import RangeError, ShapeError

__all__ = ["w4a4"]

DEPTH, BYTES, SPAN = 256, 128, 128  # columns of a stage, their bytes, columns whose sum is scaled at once
FEW, MANY = Tile("w4a4_m16", 16, 64, 128, 4, DEPTH), Tile("w4a4_m128", 128, 128, 256, 3, DEPTH)
GROUPS = (16, 64)  # rows of a tile where groups have scales


def w4a4(
    x: Any,
    words: Any,
    x_scale: Any,
    w_scale: Any,
    group: int = -1,
    x_outliers: Any | None = None,
    w_outliers: Any | None = None,
    x_outlier_scale: Any | None = None,
    w_outlier_scale: Any | None = None,
    bias: Any | None = None,
    *,
    stream: object = None,
) -> Any:
    """4-bit activations times 4-bit weights, with scales of groups on both sides and outliers of 8 bits beside them.

    x                [M, K / 8] i32, codes in layout "dense", torch, CuPy or JAX, contiguous, on a CUDA device; the
                     others beside it
    words            [N, K / 8] i32; K below 2 ** 17
    x_scale          [M, K / group] f32
    w_scale          [N, K / group] f32
    group            a multiple of 128, or all of K
    x_outliers       [M, C] i8, C below 2 ** 17, or None, like the three that follow
    w_outliers       [N, C] i8
    x_outlier_scale  [M] f32
    w_outlier_scale  [N] f32
    bias             [N] f32, or None
    stream           as in `wna16`
    returns          [M, N] f32, framework and device of x

    int4 tensor cores on sm_80, int8 ones on sm_90 (cuda/gemm/w4a4.cu, which states the bound); with one group and no
    outliers the bits of the CPU. Raises as `wna16` does.
    """
    seen, codes = view("x", x), view("words", words)
    of_x, of_w = view("x_scale", x_scale), view("w_scale", w_scale)
    addend = None if bias is None else view("bias", bias)
    given = {
        "x_outliers": x_outliers,
        "w_outliers": w_outliers,
        "x_outlier_scale": x_outlier_scale,
        "w_outlier_scale": w_outlier_scale,
    }
    beside = [None if array is None else view(what, array) for what, array in given.items()]
    sizes = check(seen, codes, of_x, of_w, group, beside, addend)
    m, n, k = sizes.m, sizes.n, sizes.k
    if sizes.exact:
        scales = [of_x, of_w, addend]
        return product("w4a4", (FEW, MANY), x, [seen, codes], scales, [m, n, k], (BYTES, BYTES), stream)
    rows = fitting(GROUPS, m)
    blocks, operands = math.ceil(m / rows) * math.ceil(n / float8.COLUMNS), [seen, codes, of_x, of_w, *beside, addend]
    numbers = [m, n, k, sizes.group, sizes.outliers]
    return float8.product(float8.block("w4a4", "groups", rows), x, operands, (m, n), k, blocks, numbers, stream, DEPTH)


@dataclass(frozen=True)
class Sizes:
    """What arguments of w4a4 that fit together say: `exact` where one scale belongs to a whole sum."""

    m: int
    n: int
    k: int
    group: int
    outliers: int
    exact: bool


def check(
    x: View, words: View, x_scale: View, w_scale: View, group: int, outliers: list[View | None], bias: View | None
) -> Sizes:
    """The sizes of arguments that fit together, outliers as they follow each other; raises what w4a4 raises."""
    for codes in (x, words):
        codes.expect("i32", beside=x)
        if len(codes.shape) != 2:
            raise ShapeError(codes.what, codes.shape, "[rows, K / 8]")
    (m, width), n = x.shape, words.shape[0]
    k = 8 * width
    if words.shape[1] != width:
        raise ShapeError("words", words.shape, f"[N, {width}], as x")
    if group == -1:
        group = max(k, 1)
    if group < 1 or k % group or (group % SPAN and group != k and k):
        raise ShapeError("group", group, f"a divisor of K = {k} and a multiple of {SPAN}, or -1 for all of it")
    beside, count = [each for each in outliers if each is not None], 0
    if len(beside) not in (0, len(outliers)):
        raise ShapeError("outliers", f"{len(beside)} of four arrays", "both matrices and both scales, or none")
    fitting: list[tuple[View, tuple[int, ...]]] = [(x_scale, (m, k // group)), (w_scale, (n, k // group))]
    if beside:
        for columns in beside[:2]:
            columns.expect("i8", beside=x)
            if len(columns.shape) != 2:
                raise ShapeError(columns.what, columns.shape, "[rows, C]")
        count = beside[0].shape[1]
        fitting += zip(beside, ((m, count), (n, count), (m,), (n,)), strict=True)
    for scale in (x_scale, w_scale, *beside[2:]):
        scale.expect("f32", beside=x)
    for array, expected in fitting:
        if array.shape != expected:
            raise ShapeError(array.what, array.shape, f"{expected} for groups of {group} and {count} outliers")
    float8.expect_bias(bias, x, (n,))
    for what, given in (("K", k), ("C", count)):
        if given >= 2**17:
            raise RangeError(what, given, "below 2^17, so that 32 bits hold every sum")
    if max(m, n, math.ceil(m / 16) * math.ceil(n / 64)) >= 2**31:
        raise RangeError("x and words", f"M, N = {m}, {n}", "each, and the tiles of the result, below 2^31")
    return Sizes(m, n, k, group, count, exact=not beside and group == k)
