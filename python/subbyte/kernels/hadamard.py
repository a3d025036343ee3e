"""The Hadamard transform, alone and before a quantization."""

from __future__ import annotations

from subbyte.kernels._array import Array, call


def hadamard(x: Array, scale: float | None = None, transpose: bool = False) -> Array:
    """Multiplies the last axis by a Hadamard matrix: scale * H x, in n log2(n) additions and n K multiplications.

    x          [..., n] f32, f16 or bf16, contiguous; CPU or CUDA. On CUDA n has a Hadamard matrix, and a row fits the
               shared memory of a block (41,000 numbers on sm_80, 58,000 on sm_90)
    scale      None: 1 / sqrt(n), which makes the transform orthonormal
    transpose  multiply by the transpose of H: the inverse, where H is orthonormal. Not needed where H is symmetric: for
               powers of two, and Hartley's
    returns    [..., n], dtype of x: computed in f32, rounded once; what is too large for f16 becomes infinity

    For a power of two H[i, j] = (-1) ** popcount(i & j). Otherwise H is the Kronecker product of H_K and that matrix, K
    the least order, a multiple of 4 to 1024, that leaves a power of two and that a construction gives: Williamson's for
    52, 116, 124, 156 and 172; else Paley's first (K - 1 prime), else his second (K / 2 - 1 prime), as 12, 20, 28, 36,
    44, 60, 76, 108, 140, 148. These are the matrices of QuIP# and QuaRot, but that QuaRot takes 40 where this takes 20
    and 2.

    Where none leaves a power of two, Paley's over powers of primes, as 100 (49), 244 (243) and 340 (169): row and
    column i + 1 stand for the polynomial whose coefficients are the digits of i to the base of the prime, the constant
    one lowest, modulo x^k - r with the first r, counted alike, of which x generates the field. Where none of these does
    either, as for 92 = 23 * 4 and 13696 = 107 * 128, K is the odd part of n, to 4096, and H_K is Hartley's matrix,
    cos t + sin t with t = 2 pi i j / K: no Hadamard matrix, but symmetric, orthogonal and with entries of at most
    sqrt(2).

    Every path gives the same bits, CUDA where K is 1. Raises RangeError (n), ShapeError, DtypeError, StrideError,
    DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> hadamard(np.array([[1.0, 0.0, 0.0, 1.0]], np.float32), scale=1.0)
    array([[2., 0., 0., 2.]], dtype=float32)
    """
    return call("hadamard", {"x": x}, scale=scale, transpose=transpose)


def hadamard_quantize(
    x: Array,
    signs: Array | None = None,
    scale: float | None = None,
    transpose: bool = False,
    eps: float = 1e-5,
    format: str = "int8",
) -> tuple[Array, Array]:
    """A randomized Hadamard transform and the dynamic quantization of what it gives: an online rotation before W4A8.

    x          [T, n] f32, f16 or bf16, n as in `hadamard`; contiguous; CPU or CUDA
    signs      [n] f32, factors of the columns of x, or None: 1
    scale      as in `hadamard`, as is `transpose`
    eps        least magnitude that a row's largest counts as, above 0
    format     as in `quantize_tokens`
    returns    codes [T, n] i8, or u8 for e4m3fn; scale [T] f32: those of `quantize_tokens` for scale * H (signs * x)

    What is transformed stays f32 and is written nowhere. The bits are those of both kernels, one after the other (for
    f32; of what f16 and bf16 would be rounded to between them, they are not). A row with NaN or infinity gets the scale
    NaN and codes 0. Raises RangeError (n, eps), UnknownNameError (format), ShapeError, DtypeError, StrideError,
    DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> hadamard_quantize(np.array([[1.0, 0.0, 0.0, 3.0]], np.float32), scale=1.0)
    (array([[127, -64, -64, 127]], dtype=int8), array([0.03149606], dtype=float32))
    """
    arrays, options = {"x": x, "signs": signs}, {"scale": scale, "transpose": transpose}
    codes, scales = call("hadamard_quantize", arrays, **options, eps=eps, format=format)
    return codes, scales
