"""The definition of the three orders, bit by bit, in Python integers."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case

SIZES = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 160, 257)


def pack(codes: np.ndarray, bits: int, order: str = "dense") -> np.ndarray:
    """A row becomes one large integer, and its 32-bit digits are the words."""
    rows, cols = codes.shape
    width = -(-cols * bits // 32)
    words = np.zeros((rows, width), np.uint32)
    for row in range(rows):
        number = 0
        for col, code in enumerate(codes[row].tolist()):
            for low, size, start in fields(bits, col, order):
                number |= (code >> low & (1 << size) - 1) << start
        for word in range(width):
            words[row, word] = number >> 32 * word & 0xFFFFFFFF
    return words.view(np.int32)


def fields(bits: int, col: int, order: str) -> list[tuple[int, int, int]]:
    """The pieces of a code, lowest first: its first bit, its size, and where that lies in the row."""
    if order == "dense":
        return [(0, bits, col * bits)]
    if order == "awq":
        return [(0, 4, col // 8 * 32 + 4 * {0: 0, 2: 1, 4: 2, 6: 3, 1: 4, 3: 5, 5: 6, 7: 7}[col % 8])]
    planes = {1: [1], 2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 7: [4, 2, 1], 8: [8]}[bits]
    starts = [sum(planes[:i]) for i in range(len(planes))]
    # 32 fields of `size` bits are `size` words
    return [
        (low, size, 32 * (col // 32 * bits + low) + col % 32 * size) for low, size in zip(starts, planes, strict=True)
    ]


def cases(
    sizes: tuple[int, ...] = SIZES, rows: int = 3, bits: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
) -> list[Case]:
    """Rows of every size, in every order that takes them."""
    random = np.random.default_rng(1)
    found = []
    for order, block in (("dense", 1), ("awq", 8), ("planar", 32)):
        for width in bits:
            for cols in sizes:
                if cols % block == 0 and (order != "awq" or width == 4):
                    codes = random.integers(0, 1 << width, (rows, cols), np.uint8)
                    moved = codes.size + rows * 4 * -(-cols * width // 32)
                    options = {"bits": width, "order": order}
                    found.append(Case(f"{order}-{width}-{rows}x{cols}", (codes,), options, pack, bytes=moved))
    return found
