"""The matrix by its definition, in f64."""

from __future__ import annotations

import math

import numpy as np
from tests.oracles.case import Case


def hadamard(x: np.ndarray, scale: float | None = None) -> np.ndarray:
    """scale * x H with H[i, j] = (-1) ** (number of ones that i and j share)."""
    n = x.shape[-1]
    matrix = np.array([[(-1) ** (i & j).bit_count() for j in range(n)] for i in range(n)], np.float64)
    factor = 1 / math.sqrt(n) if scale is None else scale
    return (x.astype(np.float64) @ matrix * np.float32(factor)).astype(np.float32)


def cases() -> list[Case]:
    """Every power of two up to 1024."""
    found = []
    for log in range(11):
        n = 1 << log
        for shape in ((0, n), (3, n), (2, 5, n)):
            x = np.random.default_rng(19).standard_normal(shape).astype(np.float32)
            for scale in (None, 1.0, -0.37):
                factor = 1 / math.sqrt(n) if scale is None else abs(scale)
                # each of log2(n) additions and two last roundings err by half a unit of at most sum |x|
                bound = (log + 2) * 2**-24 * factor * float(np.abs(x).sum(-1).max(initial=0)) * 1.01
                name = f"{'x'.join(map(str, shape))}-{scale}"
                found.append(Case(name, (x,), {"scale": scale}, hadamard, bound, 8 * x.size, x.size * log))
    return found


def large(rows: int, n: int) -> Case:
    """For the bench."""
    x = np.random.default_rng(20).standard_normal((rows, n), np.float32)
    return Case(f"{rows}x{n}", (x,), {}, hadamard, 1e-3, 8 * x.size, x.size * (n.bit_length() - 1))
