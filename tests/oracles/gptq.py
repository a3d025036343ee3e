"""GPTQ's column loop as the paper has it, one column at a time, in f64: no blocks, no tiles.

The one thing that depends on a block is which weights a group's grid is fitted on: those after the errors of all
earlier columns (`fresh_groups`), or those after the errors of all earlier blocks (as released). A copy taken at the
start of each block tells the second.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.oracles.case import Case
from tests.oracles.inverse_factor import correlated, inverse_factor

#: Rows nearer than this to another code are kept out of cases: f32 may take the other side of the tie.
MARGIN = 1e-3


class Grid:
    """One affine grid a row: range to scale and zero point, f64."""

    def __init__(self, bits: int, symmetric: bool) -> None:
        self.top, self.symmetric = 2**bits - 1, symmetric
        self.middle = 2 ** (bits - 1)

    def fit(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scale, zero point, and how far the zero point is from a tie, for each row of `values`."""
        lo, hi = np.minimum(values.min(1), 0), np.maximum(values.max(1), 0)
        if self.symmetric:
            hi = np.maximum(-lo, hi)
            lo = -hi
        empty = lo == hi
        lo, hi = np.where(empty, -1.0, lo), np.where(empty, 1.0, hi)
        scale = (hi - lo) / self.top
        if self.symmetric:
            return scale, np.full(len(scale), float(self.middle)), np.full(len(scale), 0.5)
        return scale, np.round(-lo / scale), tie(-lo / scale)


def tie(steps: np.ndarray) -> np.ndarray:
    """The distance to the next half."""
    return np.abs(steps - np.floor(steps) - 0.5)


def run(
    weight: np.ndarray,
    factor: np.ndarray,
    bits: int,
    group: int = -1,
    symmetric: bool = True,
    fresh_groups: bool = False,
    block: int = 128,
    scale: np.ndarray | None = None,
    zero: np.ndarray | None = None,
    index: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The results, and each row's smallest distance to a tie."""
    rows, cols = weight.shape
    grid, size = Grid(bits, symmetric), cols if group == -1 else group
    now, start = weight.astype(np.float64), weight.astype(np.float64)
    upper = factor.astype(np.float64)
    codes, loss, margin = np.zeros((rows, cols), np.uint8), np.zeros(rows), np.full(rows, 0.5)
    if index is None:
        index = np.arange(cols) // size
        scales, zeros = np.zeros((rows, cols // size)), np.zeros((rows, cols // size))
    else:
        scales, zeros = scale.astype(np.float64), zero.astype(np.float64)
    for j in range(cols):
        if j % block == 0:
            start = now.copy()
        if scale is None and j % size == 0:
            fitted = (now if fresh_groups else start)[:, j : j + size]
            scales[:, j // size], zeros[:, j // size], distance = grid.fit(fitted)
            margin = np.minimum(margin, distance)
        s, z = scales[:, index[j]], zeros[:, index[j]]
        steps = now[:, j] / s
        code = np.clip(np.round(steps) + z, 0, grid.top)
        inside = (steps + z > -1) & (steps + z < grid.top + 1)
        margin = np.minimum(margin, np.where(inside, tie(steps), 0.5))
        error = (now[:, j] - s * (code - z)) / upper[j, j]
        now[:, j + 1 :] -= np.outer(error, upper[j, j + 1 :])
        codes[:, j] = code
        loss += error**2 / 2
    results = {"codes": codes, "scale": scales, "zero": zeros, "compensated": now, "loss": loss}
    return results, margin


def gptq(*args: Any, **kwargs: Any) -> tuple[np.ndarray, ...]:
    """Codes, scale, zero, compensated weight and loss, in the kernel's dtypes."""
    results, _ = run(*args, **kwargs)
    dtypes = {"codes": np.uint8, "zero": np.uint8}
    return tuple(array.astype(dtypes.get(name, np.float32)) for name, array in results.items())


def clear(weight: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
    """Which rows of `weight` stay clear of ties."""
    return run(weight, *args, **kwargs)[1] > MARGIN


def problem(rows: int, cols: int, seed: int, damp: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """A random weight and the factor of a correlated Hessian."""
    weight = np.random.default_rng(seed).standard_normal((rows, cols), np.float32)
    return weight, inverse_factor(correlated(cols, seed), damp)


def cases() -> list[Case]:
    """Widths of codes, groups that start inside a block and that span blocks, both rules, given grids in any order."""
    found = []
    shapes = [(1, 1, 1, 8), (3, 5, 5, 2), (33, 24, 8, 128), (40, 96, 32, 64), (70, 60, 20, 32), (9, 130, 65, 32)]
    for seed, (rows, cols, group, block) in enumerate(shapes):
        for bits in (2, 3, 4, 8):
            for fresh in (False, True):
                for symmetric in (True, False):
                    options = {
                        "bits": bits,
                        "group": group,
                        "symmetric": symmetric,
                        "fresh_groups": fresh,
                        "block": block,
                    }
                    rule = ("fresh" if fresh else "stale") + ("" if symmetric else "-asymmetric")
                    name = f"{rows}x{cols}-g{group}-b{bits}-{rule}"
                    found.append(settled(name, *problem(2 * rows, cols, seed), rows, options))
    random = np.random.default_rng(31)
    for rows, cols, count in [(5, 12, 3), (34, 70, 4)]:
        weight, factor = problem(2 * rows, cols, 32)
        index = random.integers(0, count, cols).astype(np.int32)
        scale = random.uniform(0.2, 0.5, (2 * rows, count)).astype(np.float32)
        zero = random.integers(0, 16, (2 * rows, count)).astype(np.uint8)
        grids = {"scale": scale, "zero": zero, "index": index}
        found.append(settled(f"given-{rows}x{cols}x{count}", weight, factor, rows, {"bits": 4, "block": 32, **grids}))
    return found


def settled(name: str, weight: np.ndarray, factor: np.ndarray, rows: int, options: dict[str, Any]) -> Case:
    """A case of at most `rows` rows that are clear of ties, so that f32 and f64 must choose the same codes.

    The values then differ by rounding alone: at most one unit of f32 for each of the C updates of a value, and as much
    again from the division; the bound takes the largest value that takes part.
    """
    keep = np.flatnonzero(clear(weight, factor, **options))[:rows]
    options |= {key: options[key][keep] for key in ("scale", "zero") if key in options}
    results, _ = run(weight[keep], factor, **options)
    largest = max(float(np.abs(results[key]).max(initial=0)) for key in ("compensated", "loss"))
    bound = 4 * (weight.shape[1] + 2) * 2.0**-24 * max(largest, 1.0) * float(factor.max() / np.diag(factor).min())
    assert bound < 0.5, "codes must be told apart"
    return Case(name, (weight[keep], factor), options, gptq, bound)


def large(rows: int, cols: int, **options: Any) -> Case:
    """For the bench: the multiply-adds of the updates."""
    weight = np.random.default_rng(33).standard_normal((rows, cols), np.float32)
    factor = np.random.default_rng(34).standard_normal((cols, cols), np.float32)
    factor = np.triu(0.1 * factor / cols**0.5, 1) + np.eye(cols, dtype=np.float32)
    moved = 4 * (2 * weight.size + factor.size // 2) + weight.size
    name = f"{rows}x{cols}-g{options['group']}"
    return Case(name, (weight, factor), options, gptq, bytes=moved, flops=rows * cols**2)
