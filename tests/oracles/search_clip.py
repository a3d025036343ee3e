"""AWQ's released search, try by try, with errors in f64 from inputs whose Gram matrix the kernel gets."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.oracles.case import Case
from tests.oracles.fit_affine import fraction, numbers, parameters


def errors(
    weight: np.ndarray,
    gram: np.ndarray,
    bits: int,
    group: int,
    shrink_grid: int = 20,
    shrink_steps: int = 10,
    **grid: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """The clips [R, G, steps] that are tried, and d^T gram d of each."""
    rows, cols = weight.shape
    clips = np.zeros((rows, cols // group, shrink_steps), np.float32)
    found = np.zeros(clips.shape)
    for row, g, i in np.ndindex(clips.shape):
        values = weight[row, g * group : (g + 1) * group]
        clip = np.abs(values).max() * fraction(i, shrink_grid)
        clipped = np.clip(values, -clip, clip)
        scale, zero = parameters(clipped.min(), clipped.max(), bits, **grid)
        codes = np.clip(np.rint(clipped / scale) + zero, 0, 2**bits - 1)
        d = np.float64(scale) * (codes - zero) - values
        clips[row, g, i], found[row, g, i] = clip, d @ gram[g].astype(np.float64) @ d
    return clips, found


def search_clip(weight: np.ndarray, gram: np.ndarray, **options: Any) -> np.ndarray:
    """The first clip of the smallest error."""
    clips, found = errors(weight, gram, **options)
    return np.take_along_axis(clips, found.argmin(-1)[..., None], -1)[..., 0]


def cases() -> list[Case]:
    """Groups around the widths of vectors and panels, and the grids of AWQ and of servers."""
    found = []
    for rows, group, count in ((0, 8, 1), (2, 1, 3), (3, 7, 2), (2, 16, 2), (3, 17, 1), (2, 32, 3), (2, 65, 1)):
        weight = numbers((rows, group * count), seed=16)
        x = np.random.default_rng(17).standard_normal((24, count, group))
        gram = np.einsum("tgi,tgj->gij", x, x).astype(np.float32)
        for name, grid in (("awq", {"symmetric": False, "forced_zero": False, "eps": 1e-5}), ("symmetric", {})):
            for bits, steps in ((2, 10), (3, 1), (4, 10), (4, 13)):
                options = {"bits": bits, "group": group, "shrink_steps": steps, **grid}
                found.append(
                    Case(f"{name}-{bits}-{steps}-{rows}x{count}x{group}", (weight, gram), options, search_clip)
                )
    return found


def large(rows: int, cols: int, group: int) -> Case:
    """For the bench: AWQ's own search."""
    random = np.random.default_rng(18)
    weight = random.standard_normal((rows, cols), np.float32)
    x = random.standard_normal((2 * group, cols // group, group), np.float32)
    gram = np.einsum("tgi,tgj->gij", x, x)
    options = {"bits": 4, "group": group, "symmetric": False, "forced_zero": False, "eps": 1e-5}
    # only half of a symmetric form has to be evaluated
    return Case(f"{rows}x{cols}-g{group}", (weight, gram), options, search_clip, flops=10 * weight.size * group)
