"""8-bit floats times 4-bit codes with scales of groups: cuda/gemm/int4_fp8.cu."""

from __future__ import annotations

import math
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, view
from subbyte.cuda.gemm.float8 import COLUMNS, DEPTH, block, expect_bias, product
from subbyte.cuda.gemm.tuned import choose
from subbyte.errors import RangeError, ShapeError

__all__ = ["int4_fp8"]

#: How entries name the dtypes of w_scale.
SCALES = {"u8": "e4m3fn", "bf16": "bf16"}
SPAN = 64  # columns whose sum is scaled at least


def int4_fp8(
    x: Any,
    words: Any,
    x_scale: Any,
    w_scale: Any,
    group: int = -1,
    tensor_scale: float = 1.0,
    bias: Any | None = None,
    *,
    stream: object = None,
) -> Any:
    """E4M3 activations times 4-bit weights: y = (x W^T) * x_scale * tensor_scale + bias, W = w_scale * (code - 8).

    x             [M, K] u8, codes of E4M3, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    words         [N, ceil(K / 8)] i32, codes in layout "dense"
    x_scale       [M] or [1] f32
    w_scale       [N, K / group] u8, codes of E4M3, or bf16
    group         a multiple of 64, or all of K
    tensor_scale  a normal number above 0
    bias          [N] f32, or None
    stream        as in `wna16`
    returns       [M, N] f32, framework and device of x

    f16 tensor cores (cuda/gemm/int4_fp8.cu, which states the bound); on sm_90a from 17 rows on those for 8-bit floats,
    which sum less exactly (cuda/gemm/int4_fp8_sm90a.cu, likewise). Raises as `wna16` does.
    """
    seen, codes = view("x", x), view("words", words)
    of_x, of_w = view("x_scale", x_scale), view("w_scale", w_scale)
    addend = None if bias is None else view("bias", bias)
    m, n, k, group = check(seen, codes, of_x, of_w, group, tensor_scale, addend)
    rows, slices = choose("int4_fp8", seen.device, (m, n, k))
    entry = block("int4_fp8", SCALES[of_w.dtype], rows, wgmma=driver.hopper(seen.device), row_bytes=DEPTH // 2)
    numbers = [m, n, k, group, of_x.shape[0], float(tensor_scale)]
    operands, blocks = [seen, codes, of_x, of_w, addend], math.ceil(m / rows) * math.ceil(n / COLUMNS)
    return product(entry, x, operands, (m, n), k, blocks, numbers, stream, slices=slices)


def check(
    x: View, words: View, x_scale: View, w_scale: View, group: int, tensor_scale: float, bias: View | None
) -> tuple[int, int, int, int]:
    """M, N, K and the group of arguments that fit together; raises what int4_fp8 raises."""
    if not (2.0**-126 <= tensor_scale < 2.0**128):
        raise RangeError("tensor_scale", tensor_scale, "a normal number above 0")
    x.expect("u8")
    words.expect("i32", beside=x)
    x_scale.expect("f32", beside=x)
    w_scale.expect(*SCALES, beside=x)
    for codes in (x, words):
        if len(codes.shape) != 2:
            raise ShapeError(codes.what, codes.shape, "[rows, K]" if codes is x else "[N, ceil(K / 8)]")
    (m, k), n = x.shape, words.shape[0]
    if words.shape[1] != (k + 7) // 8:
        raise ShapeError("words", words.shape, f"[N, {(k + 7) // 8}] for K = {k}")
    if group == -1:
        group = max(k, 1)
    if group < 1 or k % group or (group % SPAN and group != k and k):
        raise ShapeError("group", group, f"a divisor of K = {k} and a multiple of {SPAN}, or -1 for all of it")
    if w_scale.shape != (n, k // group):
        raise ShapeError("w_scale", w_scale.shape, f"({n}, {k // group}) for groups of {group}")
    if x_scale.shape not in ((m,), (1,)):
        raise ShapeError("x_scale", x_scale.shape, f"({m},) or (1,)")
    expect_bias(bias, x, (n,))
    if max(m, n, k, math.ceil(m / 16) * math.ceil(n / COLUMNS)) >= 2**31:
        raise RangeError("x and words", f"M, N, K = {m}, {n}, {k}", "each, and the tiles of the result, below 2^31")
    return m, n, k, group
