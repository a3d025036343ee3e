"""Codes cut out of the bytes of a row as a string of bits; values looked up one by one; the product in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def values(words: np.ndarray, scale: np.ndarray, table: np.ndarray, cols: int) -> np.ndarray:
    """[N, K] f64: scale * table[code]."""
    bits = table.shape[1].bit_length() - 1
    weight = np.zeros((len(words), cols))
    for n, row in enumerate(words):
        stream = "".join(f"{byte:08b}"[::-1] for byte in row.tobytes())
        for k in range(cols):
            code = int(stream[k * bits : (k + 1) * bits][::-1], 2)
            own = table[n if len(table) > 1 else 0]
            weight[n, k] = float(scale[n, k * scale.shape[1] // cols]) * float(own[code])
    return weight


def lookup(x: np.ndarray, words: np.ndarray, scale: np.ndarray, table: np.ndarray, group: int = -1) -> np.ndarray:
    """x W^T, rounded once."""
    assert group in (-1, x.shape[-1] // max(scale.shape[1], 1))
    return (x.astype(np.float64) @ values(words, scale, table, x.shape[-1]).T).astype(x.dtype)


def case(
    rows: int, cols: int, depth: int, bits: int, group: int, by_row: bool, dtype: str = "f4", check: bool = True
) -> Case:
    """Random words: every bit pattern is a code."""
    random = np.random.default_rng(rows + cols + depth + bits)
    x = random.standard_normal((rows, depth)).astype(dtype)
    words = random.integers(-(2**31), 2**31, (cols, -(-depth * bits // 32))).astype(np.int32)
    scale = random.uniform(0.01, 0.1, (cols, depth // group)).astype(dtype)
    table = random.standard_normal((cols if by_row else 1, 2**bits)).astype(dtype)
    limit = 0.0
    if check:
        # K + 3 roundings of 2^-24 of sums no larger than that of magnitudes, in any order; then the dtype's own.
        weight = np.abs(values(words, scale, table, depth))
        largest = float((np.abs(x.astype(np.float64)) @ weight.T).max(initial=0))
        limit = ((depth + 3) * 2.0**-24 + np.finfo(x.dtype).eps / 2 * (dtype != "f4")) * largest
    name = f"{rows}x{cols}x{depth}-b{bits}-g{group}{'-by_row' * by_row}{'' if dtype == 'f4' else '-' + dtype}"
    moved = words.nbytes + scale.nbytes + table.nbytes + x.nbytes + x.itemsize * rows * cols
    args, options = (x, words, scale, table), {"group": group}
    return Case(name, args, options, lookup, limit, bytes=moved, flops=2 * rows * cols * depth)


def cases() -> list[Case]:
    """Every width of codes, tables of all rows and of each; groups inside and across words; one row of x, few, many."""
    shapes = [(0, 3, 8, 8), (1, 1, 1, 1), (2, 3, 7, 7), (1, 5, 40, 8), (3, 65, 96, 32), (9, 13, 60, 12)]
    shapes += [(1, 2, 200, 200), (17, 257, 64, 64), (1, 5, 192, 32), (1, 3, 256, 128)]
    found = [
        case(rows, cols, depth, bits, group, by_row)
        for bits in range(1, 9)
        for rows, cols, depth, group in shapes
        for by_row in (False, True)
    ]
    return found + [case(rows, 9, 128, 4, 64, by_row, "f2") for rows in (1, 12) for by_row in (False, True)]
