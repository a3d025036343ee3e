"""16-bit floats times codes of vectors: cuda/gemm/codebook_gemm.cu for E8P, and what calls it for stored codewords."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from subbyte import _rust
from subbyte.cuda import driver
from subbyte.cuda.arrays import View, constant, empty, exported, view
from subbyte.cuda.gemm.codebook_gemm_vectors import codebook_gemm_vectors
from subbyte.cuda.gemm.split import add, split
from subbyte.cuda.gemm.wna16 import THREADS, few
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError

__all__ = ["codebook_gemm"]

#: What a value of the second stage counts, by the bits of a weight.
STEPS = {2: 0.0, 3: 1 / 2.04, 4: 1 / 3.45}


def codebook_gemm(
    x: Any,
    words: Any,
    bits: int = 2,
    codebook: Any | None = None,
    residual: Any | None = None,
    outputs: int | None = None,
    *,
    stream: object = None,
) -> Any:
    """16-bit activations times codes that stand for vectors, looked up on the way: y = x W^T.

    x         [..., K] f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it. E8P: 8
              divides K
    words     E8P: [N, ceil(K * bits / 32)] i32, the codes of each row as one dense bit stream; else as in
              `codebook_gemm_vectors`, like what follows
    bits      of E8P: 2, 3 or 4
    codebook  None: E8P
    residual  None for E8P
    outputs   N, or None
    stream    as in `wna16`
    returns   [..., N], framework, dtype and device of x

    f16 and bf16 tensor cores (cuda/gemm/codebook_gemm.cu, which states the bound), up to 16 rows at a time. The first
    call copies the tables of the codewords, so make one before capturing a graph. Raises as `wna16` does.
    """
    if codebook is not None:
        return codebook_gemm_vectors(x, words, codebook, residual, outputs, stream=stream)
    if residual is not None:
        raise ShapeError("residual", "a residual alone", "a codebook before it")
    seen, codes = view("x", x), view("words", words)
    m, n, k = check(seen, codes, bits, outputs)
    tokens = 8 if m <= 8 else 16
    tile = few(tokens, bits)
    y, blocks = empty(x, seen.framework, (*seen.shape[:-1], n)), math.ceil(m / tokens) * math.ceil(n / tile.columns)
    if blocks == 0:
        return y
    result = exported("y", y)
    slices, depth = split(blocks, k, driver.multiprocessors(seen.device), tile.depth)
    parts = exported("parts", empty(x, seen.framework, (slices, m, n), "float32")) if slices > 1 else None
    arrays, numbers = [seen, codes, tables(seen.device), result, parts], [m, n, k, depth, STEPS[bits]]
    entry, shared = f"codebook_gemm_e8p{bits}_{seen.dtype}_m{tokens}", tile.shared(min(m, tokens))
    start("codebook_gemm", entry, seen, (blocks, slices), THREADS, arrays, numbers, shared=shared, stream=stream)
    if parts is not None:
        add(parts, result, stream)
    return y


def check(x: View, words: View, bits: int, outputs: int | None) -> tuple[int, int, int]:
    """M, N and K of arguments that fit together; raises what codebook_gemm raises."""
    if bits not in STEPS:
        raise RangeError("bits", bits, "2, 3 or 4")
    x.expect("f16", "bf16")
    words.expect("i32", beside=x)
    if not x.shape or x.shape[-1] % 8:
        raise ShapeError("x", x.shape, "[..., K], K a multiple of 8")
    m, k = math.prod(x.shape[:-1]), x.shape[-1]
    if len(words.shape) != 2 or words.shape[1] != (k * bits + 31) // 32:
        raise ShapeError("words", words.shape, f"[N, {(k * bits + 31) // 32}] for K = {k} and {bits} bits")
    n = words.shape[0]
    if outputs is not None and outputs != n:
        raise ShapeError("outputs", outputs, f"{n}, the rows of words")
    if max(m, n, k, math.ceil(m / 8) * math.ceil(n / 32)) >= 2**31:
        raise RangeError("x and words", f"M, N, K = {m}, {n}, {k}", "each, and the tiles of the result, below 2^31")
    return m, n, k


@functools.cache
def tables(device: int) -> View:
    """The nibbles of all codewords on a device, [3, 256] u32 (cuda/gemm/codebook_gemm.cu)."""
    return constant("tables", nibbles(), device)


def nibbles() -> np.ndarray:
    """What `tables` holds, from the values that the CPU decodes."""
    numbers = np.arange(256)
    high, low = (2 * _decoded((numbers << shift).astype(np.uint16), 2) + 7.5 for shift in (8, 0))
    second = _decoded((numbers << 16).astype(np.int32), 3) - _decoded(np.zeros(1, np.uint16), 2)
    whole = [np.rint(each).astype(np.uint32) for each in (high, low, 2 * 2.04 * second + 8)]
    whole[1] ^= whole[1][0]
    # (v0, v4), (v1, v5), ...: the order in which an mma takes the values of an eight.
    shifts = np.array([0, 4, 8, 12, 16, 20, 24, 28], np.uint32)
    return np.stack([np.bitwise_or.reduce(each << shifts, axis=1) for each in whole])


def _decoded(codes: np.ndarray, bits: int) -> np.ndarray:
    return np.from_dlpack(_rust.e8p_decode(codes[:, None], bits))
