"""The kernels: one function each, for NumPy, torch, JAX and CuPy arrays alike.

Arrays come in through DLPack and go out in the framework they came from, newly allocated; nothing is copied silently,
so what is not contiguous or not aligned is refused. The interpreter is released while a kernel runs: another thread
must not write its arguments meanwhile. No kernel is differentiable: torch tensors are detached first.

`forced(path, threads)` chooses the instructions and the threads for a `with` block, `machine()` tells them, and
`paths()` lists what this processor has. Unless forced, `SUBBYTE_SIMD` and `SUBBYTE_THREADS` decide; both are read once.
A process forked from one that has called a kernel computes on one thread: the others do not survive a fork.
"""

from __future__ import annotations

from subbyte.kernels._machine import forced as forced
from subbyte.kernels._machine import machine as machine
from subbyte.kernels._machine import paths as paths
from subbyte.kernels.codebook import (
    e8p_decode,
    e8p_encode,
    kmeans,
    nearest_codeword,
    product_decode,
    product_encode,
    product_scan,
)
from subbyte.kernels.gemm import (
    block_scaled,
    block_scaled_pair,
    codebook_gemm,
    csr,
    fp8,
    fp8_grouped,
    int4_fp8,
    lookup,
    w4a4,
    w4a8,
    w8a8,
    wna16,
    wna16_by_input,
    wna16_grouped,
)
from subbyte.kernels.hadamard import hadamard, hadamard_quantize
from subbyte.kernels.minifloat import decode_minifloat, dequantize_block, encode_minifloat, quantize_block
from subbyte.kernels.pack import pack, unpack
from subbyte.kernels.quantize import (
    dequantize_affine,
    dequantize_table,
    fit_affine,
    norm_quantize,
    quantize_affine,
    quantize_symmetric,
    quantize_table,
    quantize_tokens,
    search_clip,
)
from subbyte.kernels.solve import (
    accumulate_gram,
    bilevel,
    codebook_descent,
    coordinate_descent,
    gptq,
    gptq_codebook,
    half_quadratic,
    inverse_factor,
    ldlq,
    min_max,
)

__all__ = [
    "accumulate_gram",
    "bilevel",
    "block_scaled",
    "block_scaled_pair",
    "codebook_descent",
    "codebook_gemm",
    "coordinate_descent",
    "csr",
    "decode_minifloat",
    "dequantize_affine",
    "dequantize_block",
    "dequantize_table",
    "e8p_decode",
    "e8p_encode",
    "encode_minifloat",
    "fit_affine",
    "fp8",
    "fp8_grouped",
    "gptq",
    "gptq_codebook",
    "hadamard",
    "hadamard_quantize",
    "half_quadratic",
    "int4_fp8",
    "inverse_factor",
    "kmeans",
    "ldlq",
    "lookup",
    "min_max",
    "nearest_codeword",
    "norm_quantize",
    "pack",
    "product_decode",
    "product_encode",
    "product_scan",
    "quantize_affine",
    "quantize_block",
    "quantize_symmetric",
    "quantize_table",
    "quantize_tokens",
    "search_clip",
    "unpack",
    "w4a4",
    "w4a8",
    "w8a8",
    "wna16",
    "wna16_by_input",
    "wna16_grouped",
]
