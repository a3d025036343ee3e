"""The Walsh-Hadamard transform."""

from __future__ import annotations

from subbyte.kernels._array import Array, call


def hadamard(x: Array, scale: float | None = None) -> Array:
    """Multiplies the last axis by the Sylvester-Hadamard matrix H: scale * H x, in n log2(n) additions.

    x        [..., n] f32, n a power of two, on CUDA to 32768; contiguous; CPU or CUDA
    scale    None: 1 / sqrt(n), which makes the transform orthonormal and its own inverse
    returns  [..., n] f32

    H[i, j] = (-1) ** popcount(i & j). Every path gives the same bits. Raises RangeError (n), ShapeError, DtypeError,
    StrideError, DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> hadamard(np.array([[1.0, 0.0, 0.0, 1.0]], np.float32), scale=1.0)
    array([[2., 0., 0., 2.]], dtype=float32)
    """
    return call("hadamard", {"x": x}, scale=scale)
