"""Codes of more than eight bits as dense bit streams; `kernels.pack` takes bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["pack_wide", "unpack_wide"]

WINDOW = 5
"""Bytes that a code of 32 bits may touch."""


def pack_wide(codes: npt.NDArray[np.int32], bits: int) -> npt.NDArray[np.int32]:
    """Each row of codes [R, C] i32 as one stream of `bits` bits a code, 1 to 32: [R, ceil(C * bits / 32)] i32.

    The dense layout (docs/layouts.md): the first code lowest, zeros behind the last one.
    """
    rows, count = codes.shape
    words = -(-count * bits // 32)
    stream = np.zeros((rows, 4 * words + WINDOW), np.uint8)
    for lane, columns, low in _lanes(count, bits):
        shifted = codes[:, lane::8].astype(np.uint32).astype(np.uint64) << np.uint64(low)
        for byte in range(WINDOW):
            # Codes eight apart touch different bytes, so that each of these lines adds to a byte once.
            stream[:, byte:][:, columns] |= (shifted >> np.uint64(8 * byte)).astype(np.uint8)
    return np.ascontiguousarray(stream[:, : 4 * words]).view(np.int32)


def unpack_wide(words: npt.NDArray[np.int32], bits: int, count: int) -> npt.NDArray[np.int32]:
    """The first `count` codes of each row of a stream: the inverse of `pack_wide`, [R, count] i32."""
    stream = np.pad(words.view(np.uint8), ((0, 0), (0, WINDOW)))
    codes = np.empty((len(words), count), np.int32)
    for lane, columns, low in _lanes(count, bits):
        window = sum(stream[:, byte:][:, columns].astype(np.uint64) << np.uint64(8 * byte) for byte in range(WINDOW))
        codes[:, lane::8] = ((window >> np.uint64(low)) & np.uint64((1 << bits) - 1)).astype(np.uint32).view(np.int32)
    return codes


def _lanes(count: int, bits: int) -> list[tuple[int, slice, int]]:
    """Eight interleaved series of codes, which begin `bits` bytes apart: the first code, these bytes, and the bit in
    them."""
    lanes = []
    for lane in range(min(8, count)):
        first, low = divmod(lane * bits, 8)
        lanes.append((lane, slice(first, first + (count - lane - 1) // 8 * bits + 1, bits), low))
    return lanes
