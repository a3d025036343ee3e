"""Element by element: a difference and an exact product, each rounded once (whole zero points: the product alone)."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.fit_affine import SHAPES


def dequantize_affine(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray, group: int = -1) -> np.ndarray:
    """scale * (code - zero): 24 by 24 bits at most, which f64 holds, and one rounding to f32."""
    out = np.zeros(codes.shape, np.float32)
    for row, col in np.ndindex(codes.shape):
        g = 0 if group == -1 else col // group
        difference = np.float32(int(codes[row, col]) - float(zero[row, g]))
        with np.errstate(over="ignore"):
            out[row, col] = np.float32(float(scale[row, g]) * float(difference))
    return out


def cases() -> list[Case]:
    """Every shape, scales from subnormal to large, and every pair of code and zero point."""
    random = np.random.default_rng(11)
    found = []
    for rows, group, count in SHAPES:
        codes = random.integers(0, 256, (rows, group * count), np.uint8)
        zero = random.integers(0, 256, (rows, count), np.uint8)
        scale = (random.standard_normal((rows, count)) * 10.0 ** random.integers(-44, 35, (rows, count))).astype("f4")
        options = {"group": group if count > 1 else -1}
        found.append(Case(f"{rows}x{count}x{group}", (codes, scale, zero), options, dequantize_affine))
        floats = random.uniform(-300, 300, (rows, count)).astype(np.float32)
        found.append(Case(f"{rows}x{count}x{group}-floats", (codes, scale, floats), options, dequantize_affine))
    every = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    args = (every, np.full((256, 1), 0.1, np.float32), np.arange(256, dtype=np.uint8)[:, None].copy())
    return [*found, Case("all", args, {}, dequantize_affine)]


def large(rows: int, cols: int, group: int) -> Case:
    """For the bench."""
    random = np.random.default_rng(12)
    codes = random.integers(0, 16, (rows, cols), np.uint8)
    scale = random.uniform(0.1, 0.4, (rows, cols // group)).astype(np.float32)
    zero = random.integers(0, 16, (rows, cols // group), np.uint8)
    return Case(
        f"{rows}x{cols}-g{group}", (codes, scale, zero), {"group": group}, dequantize_affine, bytes=5 * codes.size
    )
