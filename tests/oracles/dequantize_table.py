"""Element by element, the product in f64 and rounded once."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.fit_affine import SHAPES


def dequantize_table(codes: np.ndarray, scale: np.ndarray, table: np.ndarray, group: int = -1) -> np.ndarray:
    """scale * table[code]."""
    out = np.zeros(codes.shape, np.float32)
    for row, col in np.ndindex(codes.shape):
        value = table[row if len(table) > 1 else 0, codes[row, col]]
        out[row, col] = np.float32(float(scale[row, 0 if group == -1 else col // group]) * float(value))
    return out


def cases() -> list[Case]:
    """2 to 256 values, of all rows and of each, over every shape."""
    found = []
    random = np.random.default_rng(4)
    for rows, group, count in SHAPES:
        for values in (2, 3, 8, 16, 256):
            for tables in {1, rows}:
                codes = random.integers(0, values, (rows, count * group)).astype(np.uint8)
                table = random.standard_normal((tables, values)).astype(np.float32)
                scale = random.standard_normal((rows, count)).astype(np.float32)
                options = {"group": group if count > 1 else -1}
                name = f"{rows}x{count}x{group}-{values}-{tables}"
                found.append(Case(name, (codes, scale, table), options, dequantize_table))
    return found


def large(rows: int, cols: int, group: int, bits: int) -> Case:
    """For the bench."""
    random = np.random.default_rng(8)
    codes = random.integers(0, 2**bits, (rows, cols), np.uint8)
    scale = random.uniform(1, 4, (rows, cols // group)).astype(np.float32)
    table = np.linspace(-1, 1, 2**bits, dtype=np.float32)[None]
    name = f"{rows}x{cols}-g{group}-b{bits}"
    return Case(name, (codes, scale, table), {"group": group}, dequantize_table, bytes=5 * codes.size)
