"""GEMMs on CUDA arrays: cuda/gemm/*.cu under the names and conventions of subbyte.kernels, one file each."""

from __future__ import annotations

from subbyte.cuda.gemm.block_scaled import block_scaled
from subbyte.cuda.gemm.block_scaled_pair import block_scaled_pair
from subbyte.cuda.gemm.codebook_gemm import codebook_gemm
from subbyte.cuda.gemm.csr import csr
from subbyte.cuda.gemm.fp8 import fp8
from subbyte.cuda.gemm.fp8_grouped import fp8_grouped
from subbyte.cuda.gemm.int4_fp8 import int4_fp8
from subbyte.cuda.gemm.lookup import lookup
from subbyte.cuda.gemm.w4a4 import w4a4
from subbyte.cuda.gemm.w4a8 import w4a8
from subbyte.cuda.gemm.w8a8 import w8a8
from subbyte.cuda.gemm.wna16 import wna16
from subbyte.cuda.gemm.wna16_grouped import wna16_grouped

__all__ = [
    "block_scaled",
    "block_scaled_pair",
    "codebook_gemm",
    "csr",
    "fp8",
    "fp8_grouped",
    "int4_fp8",
    "lookup",
    "w4a4",
    "w4a8",
    "w8a8",
    "wna16",
    "wna16_grouped",
]
