"""Element by element, with Python's own rounding of the f32 quotient."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.fit_affine import SHAPES, fit_affine, grids, numbers


def quantize_affine(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, bits: int, group: int = -1) -> np.ndarray:
    """clamp(rint(x / scale) + zero, 0, 2 ** bits - 1)."""
    codes = np.zeros(x.shape, np.uint8)
    for row, col in np.ndindex(x.shape):
        g = 0 if group == -1 else col // group
        # round() takes halves to even; a quotient beyond f32 is infinite, and far beyond the codes
        with np.errstate(over="ignore"):
            steps = float(np.clip(x[row, col] / scale[row, g], -1e6, 1e6))
        codes[row, col] = min(max(round(steps) + int(zero[row, g]), 0), 2**bits - 1)
    return codes


def cases() -> list[Case]:
    """Every width of codes over every shape, fitted and far too small grids, and exact halves."""
    found = []
    for rows, group, count in SHAPES:
        x = numbers((rows, group * count), seed=7)
        for name, grid in grids():
            bits = 1 + len(found) % 8
            if bits > 1 or not grid.get("narrow"):
                for size, factor in (("fitted", 1), ("small", 1e-3), ("tiny", 1e-37)):
                    scale, zero = fit_affine(x, bits, group, **grid)
                    args = (x, scale * np.float32(factor) + np.float32(1e-38), zero)
                    options = {"bits": bits, "group": group if count > 1 else -1}
                    found.append(Case(f"{name}-{bits}-{size}-{rows}x{count}x{group}", args, options, quantize_affine))
    for bits in range(1, 9):
        for zero in (0, 1, 2**bits - 1):
            x = np.arange(-600, 600, dtype=np.float32)[None] / 4
            args = (x, np.full((1, 1), 0.5, np.float32), np.full((1, 1), zero, np.uint8))
            found.append(Case(f"halves-{bits}-{zero}", args, {"bits": bits}, quantize_affine))
    return found


def large(rows: int, cols: int, group: int) -> Case:
    """For the bench."""
    random = np.random.default_rng(8)
    x = random.standard_normal((rows, cols), np.float32)
    scale = random.uniform(0.1, 0.4, (rows, cols // group)).astype(np.float32)
    zero = random.integers(0, 16, (rows, cols // group), np.uint8)
    return Case(
        f"{rows}x{cols}-g{group}", (x, scale, zero), {"bits": 4, "group": group}, quantize_affine, bytes=5 * x.size
    )
