"""One codeword after the other."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def product_decode(codes: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """The rows of each book that the codes name."""
    parts, _, dim = codebooks.shape
    x = np.zeros((len(codes), parts * dim), np.float32)
    for row, part in np.ndindex(codes.shape):
        x[row, part * dim : (part + 1) * dim] = codebooks[part, codes[row, part]]
    return x


def case(rows: int, parts: int, count: int, dim: int, seed: int = 66) -> Case:
    """Any codes."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, count, (rows, parts)).astype(np.uint8 if count <= 256 else np.uint16)
    codebooks = random.standard_normal((parts, count, dim), np.float32)
    moved = codes.nbytes + 4 * rows * parts * dim
    return Case(f"{rows}x{parts}-{count}x{dim}", (codes, codebooks), {}, product_decode, bytes=moved)


def cases() -> list[Case]:
    """Both widths of codes, parts and dimensions that are no power of two."""
    shapes = [(0, 2, 3, 4), (3, 0, 2, 2), (1, 1, 1, 1), (4, 3, 2, 0), (7, 5, 256, 3), (33, 2, 257, 8), (500, 16, 16, 8)]
    return [case(*shape) for shape in shapes]


def large(rows: int, parts: int, count: int, dim: int) -> Case:
    """For the bench."""
    return case(rows, parts, count, dim)
