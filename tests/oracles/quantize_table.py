"""Boundary by boundary, in Python floats of the f32 quotient."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.fit_affine import SHAPES, numbers


def quantize_table(x: np.ndarray, scale: np.ndarray, bounds: np.ndarray, group: int = -1) -> np.ndarray:
    """The code between whose boundaries x / scale lies; on a boundary the even one of its neighbours."""
    codes = np.zeros(x.shape, np.uint8)
    for row, col in np.ndindex(x.shape):
        with np.errstate(over="ignore"):
            steps = float(x[row, col] / scale[row, 0 if group == -1 else col // group])
        own = bounds[row if len(bounds) > 1 else 0].tolist()
        below, on = sum(bound < steps for bound in own), sum(bound == steps for bound in own)
        # codes below to below + on are as near; a run of equal boundaries steps over those between
        codes[row, col] = below if on == 0 else below + sum((below + i) % 2 for i in range(on))
    return codes


def cases() -> list[Case]:
    """1 to 255 boundaries, of all rows and of each, over every shape; numbers on boundaries and far beyond."""
    found = []
    random = np.random.default_rng(3)
    for rows, group, count in SHAPES:
        x = numbers((rows, group * count), seed=5)
        for levels in (1, 2, 3, 7, 15, 16, 63, 255):
            for tables in {1, rows}:
                bounds = np.sort(random.standard_normal((tables, levels)).astype(np.float32), axis=1)
                scale = random.uniform(0.1, 2, (rows, count)).astype(np.float32)
                options = {"group": group if count > 1 else -1}
                name = f"{rows}x{count}x{group}-{levels}-{tables}"
                found.append(Case(name, (x, scale, bounds), options, quantize_table))
    for levels in (3, 15, 31):
        bounds = (np.arange(levels, dtype=np.float32)[None] - levels // 2) / 2 + np.float32(0.25)
        x = np.arange(-200, 200, dtype=np.float32)[None] / 8
        found.append(Case(f"ties-{levels}", (x, np.ones((1, 1), np.float32), bounds), {}, quantize_table))
    return found


def large(rows: int, cols: int, group: int, bits: int) -> Case:
    """For the bench."""
    random = np.random.default_rng(8)
    x = random.standard_normal((rows, cols), np.float32)
    scale = random.uniform(1, 4, (rows, cols // group)).astype(np.float32)
    bounds = np.linspace(-1, 1, 2**bits - 1, dtype=np.float32)[None]
    name = f"{rows}x{cols}-g{group}-b{bits}"
    return Case(name, (x, scale, bounds), {"group": group}, quantize_table, bytes=5 * x.size)
