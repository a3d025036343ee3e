"""Blocks that share a scale times blocks that share a scale: cuda/gemm/block_scaled_pair.cu."""

from __future__ import annotations

import math
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, view
from subbyte.cuda.gemm.block_scaled import ELEMENTS, SCALES
from subbyte.cuda.gemm.float8 import COLUMNS, Block, product
from subbyte.cuda.gemm.tuned import KERNELS, choose
from subbyte.errors import RangeError, ShapeError, UnknownNameError

__all__ = ["block_scaled_pair"]

#: How entries name an element in blocks of that many, with scales of that dtype.
FORMATS = {
    ("e2m1", 16, "e4m3fn"): "nvfp4",
    ("e2m1", 32, "e8m0"): "mxfp4",
    ("e4m3fn", 32, "e8m0"): "mxfp8_e4m3fn",
    ("e5m2", 32, "e8m0"): "mxfp8_e5m2",
    ("int8", 32, "e8m0"): "mxint8",
}
#: What the files are called that have tiles of that many rows of an architecture's own; int8 has none.
NATIVE = {((12, 0), 16): "_sm120a", ((12, 0), 128): "_sm120a", ((10, 0), 128): "_sm100a"}
BYTES, THREADS = 128, 256  # of each row of codes in a stage; of a block


def block_scaled_pair(
    x: Any,
    words: Any,
    x_scale: Any,
    w_scale: Any,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
    *,
    stream: object = None,
) -> Any:
    """Activations times weights, both in blocks of 16 or 32 columns that share a scale: NVFP4, MXFP4, MXFP8, MXINT8.

    x             [M, K * bits / 32] i32, codes in layout "dense", torch, CuPy or JAX, contiguous, on a CUDA device; the
                  others beside it
    words         [N, K * bits / 32] i32
    x_scale       [M, K / block] u8
    w_scale       [N, K / block] u8
    element       "e2m1", "e4m3fn", "e5m2" or "int8"
    block         32; 16 for e2m1 with scales of E4M3
    scale_dtype   "e8m0"; "e4m3fn" for e2m1 in blocks of 16, whose signs not all tensor cores look at
    tensor_scale  a normal number above 0: that of x times that of the weight
    stream        as in `wna16`
    returns       [M, N] f32, framework and device of x

    On sm_120, and from 17 rows on on sm_100, floats go to tensor cores as they are (block_scaled_pair_sm120a.cu and
    _sm100a.cu in cuda/gemm); otherwise both operands are decoded for those for bf16 (block_scaled_pair.cu). All state
    the bound. Raises UnknownNameError (element, scale_dtype), RangeError (also where they are none of the five
    formats), else as `wna16` does.
    """
    seen, codes = view("x", x), view("words", words)
    of_x, of_w = view("x_scale", x_scale), view("w_scale", w_scale)
    m, n, k = check(seen, codes, of_x, of_w, element, block, scale_dtype, tensor_scale)
    rows, slices = choose("block_scaled_pair", seen.device, (m, n, k))
    architecture = "" if element == "int8" else NATIVE.get((driver.capability(seen.device), rows), "")
    rows = rows if architecture else min(rows, KERNELS["block_scaled_pair"][-1])
    depth = BYTES * 8 // ELEMENTS[element]
    entry = tile(FORMATS[element, block, scale_dtype], rows, depth // block, architecture)
    blocks, numbers = math.ceil(m / rows) * math.ceil(n / COLUMNS), [m, n, k, float(tensor_scale)]
    operands: list[View | None] = [seen, codes, of_x, of_w]
    return product(entry, x, operands, (m, n), k, blocks, numbers, stream, depth, slices)


def tile(format: str, rows: int, scales: int, architecture: str = "") -> Block:
    """The entry for tiles of `rows` rows of x, with so many scales of each row in a stage."""
    kernel = f"block_scaled_pair{architecture}"
    entry, codes = f"{kernel}_{format}_m{rows}", BYTES + scales  # of a row in a stage
    if architecture == "_sm100a":
        shared = 6 * 2 * math.ceil(rows * codes / 1024) * 1024  # a tile begins at a multiple of 1024
        return Block(kernel, entry, rows, shared, together=1)
    shared = (2 if architecture else 3) * (rows + COLUMNS) * codes
    return Block(kernel, entry, THREADS, shared, together=1 if rows == 128 else 2)


def check(
    x: View,
    words: View,
    x_scale: View,
    w_scale: View,
    element: str,
    block: int,
    scale_dtype: str,
    tensor_scale: float,
) -> tuple[int, int, int]:
    """M, N and K of arguments that fit together; raises what block_scaled_pair raises."""
    elements = sorted({element for element, _, _ in FORMATS})
    for what, given, known in (("element", element, elements), ("scale_dtype", scale_dtype, SCALES)):
        if given not in known:
            raise UnknownNameError(what, repr(given), f"on CUDA one of {', '.join(known)}")
    if (element, block, scale_dtype) not in FORMATS:
        formats = " or ".join(f"{block} for {element} with {scale}" for element, block, scale in FORMATS)
        raise RangeError("block", f"{block} for {element} with {scale_dtype}", f"on CUDA {formats}")
    if not (2.0**-126 <= tensor_scale < 2.0**128):
        raise RangeError("tensor_scale", tensor_scale, "a normal number above 0")
    for codes in (x, words):
        codes.expect("i32", beside=x)
        if len(codes.shape) != 2:
            raise ShapeError(codes.what, codes.shape, "[rows, K * bits / 32]")
    for scale in (x_scale, w_scale):
        scale.expect("u8", beside=x)
        if len(scale.shape) != 2:
            raise ShapeError(scale.what, scale.shape, f"[rows, K / {block}]")
    m, n, k = x.shape[0], words.shape[0], x_scale.shape[1] * block
    width = k * ELEMENTS[element] // 32
    for array, expected in (
        (x, (m, width)),
        (words, (n, width)),
        (x_scale, (m, k // block)),
        (w_scale, (n, k // block)),
    ):
        if array.shape != expected:
            raise ShapeError(array.what, array.shape, f"{expected} for K = {k}, {element} in blocks of {block}")
    if max(m, n, k, math.ceil(m / 16) * math.ceil(n / COLUMNS)) >= 2**31:
        raise RangeError("x and words", f"M, N, K = {m}, {n}, {k}", "each, and the tiles of the result, below 2^31")
    return m, n, k
