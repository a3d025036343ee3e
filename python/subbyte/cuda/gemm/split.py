"""How K is cut where the tiles of a result are too few to occupy a card, and added up: cuda/gemm/sum.cu."""

from __future__ import annotations

import math

from subbyte.cuda.arrays import View
from subbyte.cuda.start import start

__all__ = ["add", "split"]

SLICE = 512  # columns of K below which another slice costs more than it brings
THREADS = 256


def split(
    tiles: int, k: int, multiprocessors: int, step: int = 64, together: int = 2, slices: int = 0
) -> tuple[int, int]:
    """Slices of K and their length, a multiple of `step`, so that few tiles still occupy all multiprocessors.

    together  blocks that a multiprocessor runs at once
    slices    how many are wanted, at most; 0: as many as that

    >>> split(tiles=32, k=4096, multiprocessors=132), split(tiles=512, k=4096, multiprocessors=132)
    ((8, 512), (1, 4096))
    """
    slices = slices or max(1, min(together * multiprocessors // max(tiles, 1), k // SLICE))
    depth = max(1, math.ceil(k / slices / step)) * step
    return max(1, math.ceil(k / depth)), depth


def add(parts: View, y: View, stream: object) -> None:
    """Starts adding up the parts of slices of K, [slices, M, N] f32, into y, [M, N] of f16, bf16 or f32."""
    slices, m, n = parts.shape
    grid = (math.ceil(m * n / THREADS), 1)
    start("sum", f"sum_{y.dtype}", y, grid, THREADS, [parts, y], [slices, m, n], stream=stream)
