"""Codes to packed words and back; the orders are drawn in docs/layouts.md."""

from __future__ import annotations

from subbyte.kernels._array import Array, call


def pack(codes: Array, bits: int, order: str = "dense") -> Array:
    """Packs codes of 1 to 8 bits into 32-bit words, row by row.

    codes    [R, C] u8, each below 2 ** bits; CPU, contiguous
    order    "dense": a row is one endless little-endian bit stream, padded with zero bits to whole words;
             "awq": 4 bits, nibble k of a word holds column 8 c + (0, 2, 4, 6, 1, 3, 5, 7)[k], 8 divides C;
             "planar": 32 codes in `bits` words as bit planes of a power of two each, 32 divides C
    returns  [R, ceil(C * bits / 32)] i32

    To pack along another axis, transpose before and after. Every path gives the same bits. Raises RangeError (bits, a
    code that needs more), UnknownNameError (order), ShapeError (axes, C), DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> pack(np.array([[1, 2, 3, 4, 5, 6, 7, 0]], np.uint8), bits=4)
    array([[124076833]], dtype=int32)
    >>> hex(124076833)
    '0x7654321'
    """
    return call("pack", {"codes": codes}, bits=bits, order=order)


def unpack(words: Array, bits: int, cols: int, order: str = "dense") -> Array:
    """The exact inverse of `pack`.

    words    [R, ceil(cols * bits / 32)] i32; CPU, contiguous
    cols     codes in a row: the words alone do not say how many of the last are padding, which is ignored
    returns  [R, cols] u8

    Raises RangeError (bits, cols), UnknownNameError (order), ShapeError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> unpack(np.array([[0x7654321]], np.int32), bits=4, cols=8)
    array([[1, 2, 3, 4, 5, 6, 7, 0]], dtype=uint8)
    """
    return call("unpack", {"words": words}, bits=bits, cols=cols, order=order)
