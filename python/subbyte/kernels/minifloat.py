"""Casts between f32 and the 8- and 16-bit floats, to codes that any framework can hold."""

from __future__ import annotations

from subbyte.kernels._array import Array, call


def encode_minifloat(x: Array, format: str, saturate: bool = True) -> Array:
    """Rounds to a narrower float, to nearest, ties to even, and returns its bits.

    x         [...] f32; CPU, contiguous
    format    "e4m3fn" (largest 448, no infinity), "e5m2" (57344): OCP 8-bit floats; "bf16", "f16" (65504)
    saturate  infinity and what rounds beyond the largest finite value become that value; else infinity (e4m3fn: NaN)
    returns   [...] u8 or u16

    NaN becomes the quiet NaN of the format with its sign, zeros keep their sign, subnormals are exact. Every path gives
    the same bits. Raises UnknownNameError (format), DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> encode_minifloat(np.array([1.0, -0.0, 1e9], np.float32), "e4m3fn")
    array([ 56, 128, 126], dtype=uint8)
    """
    return call("encode_minifloat", {"x": x}, format=format, saturate=saturate)


def decode_minifloat(codes: Array, format: str) -> Array:
    """The value of each code, exactly.

    codes    [...] u8 ("e4m3fn", "e5m2") or u16 ("bf16", "f16"); CPU, contiguous
    returns  [...] f32; NaN becomes the quiet NaN of f32, with its sign

    Raises UnknownNameError (format), DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> decode_minifloat(np.array([56, 126, 1], np.uint8), "e4m3fn")
    array([1.000000e+00, 4.480000e+02, 1.953125e-03], dtype=float32)
    """
    return call("decode_minifloat", {"codes": codes}, format=format)
