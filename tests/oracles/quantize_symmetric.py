"""Element by element, with Python's own rounding of the f32 quotient."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.fit_affine import SHAPES, fit_affine, numbers


def quantize_symmetric(
    x: np.ndarray, scale: np.ndarray, bits: int = 8, group: int = -1, narrow: bool = True
) -> np.ndarray:
    """clamp(rint(x / scale), low, 2 ** (bits - 1) - 1), where low is one higher if narrow."""
    codes = np.zeros(x.shape, np.int8)
    half = 2 ** (bits - 1)
    for row, col in np.ndindex(x.shape):
        steps = round(float(np.clip(x[row, col] / scale[row, 0 if group == -1 else col // group], -1e6, 1e6)))
        codes[row, col] = min(max(steps, 1 - half if narrow else -half), half - 1)
    return codes


def cases() -> list[Case]:
    """Every width of codes over every shape, fitted and too small grids, and exact halves."""
    found = []
    for rows, group, count in SHAPES:
        x = numbers((rows, group * count), seed=9)
        for narrow in (False, True):
            for bits in range(1 + narrow, 9):
                scale, _ = fit_affine(x, bits, group, narrow=narrow)
                options = {"bits": bits, "group": group if count > 1 else -1, "narrow": narrow}
                args = (x, scale * np.float32(0.7 if bits % 2 else 1))
                found.append(Case(f"{bits}-{narrow}-{rows}x{count}x{group}", args, options, quantize_symmetric))
    halves = (np.arange(-600, 600, dtype=np.float32)[None] / 4, np.full((1, 1), 0.5, np.float32))
    return [*found, Case("halves", halves, {}, quantize_symmetric)]


def large(rows: int, cols: int, group: int) -> Case:
    """For the bench."""
    random = np.random.default_rng(10)
    x = random.standard_normal((rows, cols), np.float32)
    scale = random.uniform(0.01, 0.04, (rows, cols // group)).astype(np.float32)
    return Case(f"{rows}x{cols}-g{group}", (x, scale), {"group": group}, quantize_symmetric, bytes=5 * x.size)
