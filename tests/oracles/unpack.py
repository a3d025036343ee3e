"""The definition of the three orders, read backwards: each code picked out of the row's bits."""

from __future__ import annotations

import numpy as np
from tests.oracles import pack as packing
from tests.oracles.case import Case


def unpack(words: np.ndarray, bits: int, cols: int, order: str = "dense") -> np.ndarray:
    """`(row >> start) & ones` for each piece of each code, where the row is one large integer."""
    codes = np.zeros((len(words), cols), np.uint8)
    for row, digits in enumerate(words.view(np.uint32).tolist()):
        number = sum(digit << 32 * at for at, digit in enumerate(digits))
        for col in range(cols):
            for low, size, start in packing.fields(bits, col, order):
                codes[row, col] |= (number >> start & (1 << size) - 1) << low
    return codes


def cases(
    sizes: tuple[int, ...] = packing.SIZES, rows: int = 3, bits: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
) -> list[Case]:
    """Words of random bits: those of the padding must not matter."""
    random = np.random.default_rng(2)
    found = []
    for case in packing.cases(sizes, rows, bits):
        cols, width = case.args[0].shape[1], case.kwargs["bits"]
        words = random.integers(-(1 << 31), 1 << 31, (rows, -(-cols * width // 32))).astype(np.int32)
        found.append(Case(case.id, (words,), {**case.kwargs, "cols": cols}, unpack, bytes=case.bytes))
    return found
