"""The search of `nearest_codeword`'s oracle, part by part."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tests.oracles import nearest_codeword as nearest
from tests.oracles.case import Case


def parts_of(x: np.ndarray, codebooks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each part of all rows, and its book."""
    dim = codebooks.shape[2]
    for part, codebook in enumerate(codebooks):
        yield x[:, part * dim : (part + 1) * dim], codebook


def product_encode(x: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """The first nearest of each."""
    index = [nearest.nearest_codeword(part, codebook)[0] for part, codebook in parts_of(x, codebooks)]
    dtype = np.uint8 if codebooks.shape[1] <= 256 else np.uint16
    return np.stack(index, 1).astype(dtype) if index else np.zeros((len(x), 0), dtype)


def case(rows: int, parts: int, count: int, dim: int, seed: int = 67) -> Case:
    """Normal numbers and codewords."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, parts * dim), np.float32)
    codebooks = random.standard_normal((parts, count, dim), np.float32)
    flops = 2 * x.size * count
    return Case(f"{rows}x{parts}-{count}x{dim}", (x, codebooks), {}, product_encode, bytes=4 * x.size, flops=flops)


def cases() -> list[Case]:
    """Both widths of codes, and more rows than are encoded at a time."""
    shapes = [(0, 2, 3, 4), (3, 0, 2, 2), (1, 1, 1, 1), (4, 3, 2, 0), (7, 5, 256, 3), (3, 2, 257, 8), (400, 3, 16, 8)]
    return [case(*shape) for shape in shapes]


def large(rows: int, parts: int, count: int, dim: int) -> Case:
    """For the bench."""
    return case(rows, parts, count, dim)
