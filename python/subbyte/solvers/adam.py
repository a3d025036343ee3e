"""Adam (Kingma and Ba, 2015), for solvers that learn by gradients."""

from __future__ import annotations

import numpy as np

from subbyte.solvers.base import Floats

__all__ = ["Adam"]

FORGET = (0.9, 0.999)
"""How much of the means of gradients and of their squares a step keeps."""
LEAST = 1e-8


class Adam:
    """Steps over an array of this shape, all of it or some of its rows at a time."""

    def __init__(self, shape: tuple[int, ...], rate: float) -> None:
        self.rate = rate
        self.first, self.second = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def step(self, slope: Floats, number: int, rows: slice = slice(None)) -> Floats:
        """What to subtract from these rows for their gradient, in step `number` from 1 on."""
        first, second = self.first[rows], self.second[rows]
        first += (1 - FORGET[0]) * (slope - first)
        second += (1 - FORGET[1]) * (np.square(slope) - second)
        size = np.sqrt(second / (1 - FORGET[1] ** number)) + LEAST
        found: Floats = np.float32(self.rate / (1 - FORGET[0] ** number)) * first / size
        return found
