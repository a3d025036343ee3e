"""16-bit floats times weights in blocks that share a scale: cuda/gemm/block_scaled.cu."""

from __future__ import annotations

import math
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, empty, exported, view
from subbyte.cuda.gemm.split import add, split
from subbyte.cuda.gemm.wna16 import THREADS, few
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError, UnknownNameError

__all__ = ["block_scaled"]

#: Bits of a code.
ELEMENTS = {"e2m1": 4, "e2m3": 6, "e3m2": 6, "e4m3fn": 8, "e5m2": 8, "int8": 8, "int6": 6, "int4": 4}
SCALES = ("e4m3fn", "e8m0")
BLOCKS = (16, 32)


def block_scaled(
    x: Any,
    words: Any,
    scale: Any,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
    *,
    stream: object = None,
) -> Any:
    """16-bit activations times weights whose scale 16 or 32 neighbouring columns share: MXFP4, MXFP6, MXFP8,
    MXINT8, NVFP4.

    x             [..., K] f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    words         [N, ceil(K * bits / 32)] i32, codes in layout "dense"
    scale         [N, K / block] u8
    element       "e2m1", "e2m3", "e3m2", "e4m3fn", "e5m2", "int8", "int6" or "int4"
    block         16 or 32, which divides K
    scale_dtype   "e8m0" or "e4m3fn"
    tensor_scale  a normal number above 0
    stream        as in `wna16`
    returns       [..., N], framework, dtype and device of x

    f16 and bf16 tensor cores (cuda/gemm/block_scaled.cu, which states the bound), up to 16 rows at a time. Raises
    UnknownNameError (element, scale_dtype), else as `wna16` does.
    """
    seen, codes, scales = view("x", x), view("words", words), view("scale", scale)
    m, n, k = check(seen, codes, scales, element, block, scale_dtype, tensor_scale)
    tokens = 8 if m <= 8 else 16
    tile = few(tokens, ELEMENTS[element])
    y, blocks = empty(x, seen.framework, (*seen.shape[:-1], n)), math.ceil(m / tokens) * math.ceil(n / tile.columns)
    if blocks == 0:
        return y
    result = exported("y", y)
    slices, depth = split(blocks, k, driver.multiprocessors(seen.device), tile.depth)
    parts = exported("parts", empty(x, seen.framework, (slices, m, n), "float32")) if slices > 1 else None
    arrays = [seen, codes, scales, result, parts]
    numbers = [m, n, k, block, SCALES.index(scale_dtype), depth, float(tensor_scale)]
    entry, shared = f"block_scaled_{element}_{seen.dtype}_m{tokens}", tile.shared(min(m, tokens))
    start("block_scaled", entry, seen, (blocks, slices), THREADS, arrays, numbers, shared=shared, stream=stream)
    if parts is not None:
        add(parts, result, stream)
    return y


def check(
    x: View, words: View, scale: View, element: str, block: int, scale_dtype: str, tensor_scale: float
) -> tuple[int, int, int]:
    """M, N and K of arguments that fit together; raises what block_scaled raises."""
    for what, given, known in (("element", element, ELEMENTS), ("scale_dtype", scale_dtype, SCALES)):
        if given not in known:
            raise UnknownNameError(what, repr(given), f"on CUDA one of {', '.join(known)}")
    if block not in BLOCKS:
        raise RangeError("block", block, "16 or 32")
    if not (2.0**-126 <= tensor_scale < 2.0**128):
        raise RangeError("tensor_scale", tensor_scale, "a normal number above 0")
    x.expect("f16", "bf16")
    words.expect("i32", beside=x)
    scale.expect("u8", beside=x)
    if not x.shape or x.shape[-1] % block:
        raise ShapeError("x", x.shape, f"[..., K], K in whole blocks of {block}")
    if len(words.shape) != 2:
        raise ShapeError("words", words.shape, "[N, ceil(K * bits / 32)]")
    m, n, k = math.prod(x.shape[:-1]), words.shape[0], x.shape[-1]
    for array, expected in ((words, (n, k * ELEMENTS[element] // 32)), (scale, (n, k // block))):
        if array.shape != expected:
            raise ShapeError(array.what, array.shape, f"{expected} for K = {k}, {element} in blocks of {block}")
    if max(m, n, k, math.ceil(m / 8) * math.ceil(n / 32)) >= 2**31:
        raise RangeError("x and words", f"M, N, K = {m}, {n}, {k}", "each, and the tiles of the result, below 2^31")
    return m, n, k
