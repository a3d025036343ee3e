"""The Hadamard transform."""

from __future__ import annotations

from subbyte.kernels._array import Array, call


def hadamard(x: Array, scale: float | None = None, transpose: bool = False) -> Array:
    """Multiplies the last axis by a Hadamard matrix: scale * H x, in n log2(n) additions and n K multiplications.

    x          [..., n] f32, f16 or bf16, n = 2 ** t or K * 2 ** t, on CUDA only as long as a row fits the shared memory
               of a block (41,000 numbers on sm_80, 58,000 on sm_90); contiguous; CPU or CUDA
    scale      None: 1 / sqrt(n), which makes the transform orthonormal
    transpose  multiply by the transpose of H: the inverse, where H is orthonormal. No difference for powers of two
    returns    [..., n], dtype of x: computed in f32, rounded once; what is too large for f16 becomes infinity

    For a power of two H[i, j] = (-1) ** popcount(i & j). Otherwise H is the Kronecker product of H_K and that matrix, K
    the least order, a multiple of 4 to 1024, that leaves a power of two and that a construction gives: Williamson's for
    52, 116, 124, 156 and 172; else Paley's first (K - 1 prime), else his second (K / 2 - 1 prime), as 12, 20, 28, 36,
    44, 60, 76, 108, 140, 148. These are the matrices of QuIP# and QuaRot, but that QuaRot takes 40 where this takes 20
    and 2. Every path gives the same bits, CUDA where K is 1. Raises RangeError (n), ShapeError, DtypeError,
    StrideError, DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> hadamard(np.array([[1.0, 0.0, 0.0, 1.0]], np.float32), scale=1.0)
    array([[2., 0., 0., 2.]], dtype=float32)
    """
    return call("hadamard", {"x": x}, scale=scale, transpose=transpose)
