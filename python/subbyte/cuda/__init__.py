"""The CUDA side: PTX that the wheel carries, loaded and launched through cuda-python, without torch.

A kernel here takes what that of `subbyte.kernels` takes, on a GPU; most callers go through that. The rest is for those
who add a kernel (`load`, `launch`) or look into an installation (`devices`, `ptx`). Importing this touches neither
cuda-python nor a driver: both are looked for by the first call that needs them, which raises DependencyError or
DriverError.
"""

from __future__ import annotations

from subbyte.cuda.driver import Device, devices, driver_version
from subbyte.cuda.gemm import (
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
    wna16_grouped,
)
from subbyte.cuda.hadamard import hadamard, hadamard_quantize
from subbyte.cuda.loader import Entry, Ptx, launch, load, ptx
from subbyte.cuda.quantize import norm_quantize, quantize_tokens

__all__ = [
    "Device",
    "Entry",
    "Ptx",
    "block_scaled",
    "block_scaled_pair",
    "codebook_gemm",
    "csr",
    "devices",
    "driver_version",
    "fp8",
    "fp8_grouped",
    "hadamard",
    "hadamard_quantize",
    "int4_fp8",
    "launch",
    "load",
    "lookup",
    "norm_quantize",
    "ptx",
    "quantize_tokens",
    "w4a4",
    "w4a8",
    "w8a8",
    "wna16",
    "wna16_grouped",
]
