"""Balance: channels that stand out, in the inputs of linears or in their weights, are folded back among the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subbyte.errors import RecipeError
from subbyte.transforms.base import Floats, Work
from subbyte.transforms.fold import fold, pooled

if TYPE_CHECKING:
    from subbyte.anatomy import Pair

__all__ = ["Balance", "balancing_scale"]


def balancing_scale(inputs: Floats, weights: Floats, alpha: float, spare: float) -> Floats:
    """s_j = in_j ** alpha / w_j ** (1 - alpha) by its median, and `spare` times nearer to 1: not beyond it.

    inputs, weights   [C] f32: mean size of each input channel, root mean square of each weight column
    The form is SmoothQuant's (arXiv 2211.10438, eq. 4), with means for maxima, which would move channels by chance.
    A channel that is always zero, in either, gets 1 and no say.
    """
    alive = (inputs > 0) & (weights > 0)
    log = np.zeros(len(inputs))
    log[alive] = alpha * np.log(inputs[alive]) - (1 - alpha) * np.log(weights[alive])
    if alive.any():
        log[alive] -= np.median(log[alive])
    scale: Floats = np.exp(np.sign(log) * np.maximum(np.abs(log) - math.log(spare), 0)).astype(np.float32)
    return scale


@dataclass(frozen=True)
class Balance:
    """Divides what each pair's consumers read by `balancing_scale` and multiplies their weights: one codebook, or one
    range, then serves columns of much the same size, and no column's importance drowns the others'.

    alpha   the share of the inputs in what decides, the weights have the rest
    spare   how many times larger or smaller than most a channel may be before it is touched; 1: all are
    """

    alpha: float = 0.3
    spare: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise RecipeError("balance.alpha", self.alpha, "0 to 1", "0.3 is the usual one")
        if not 1 <= self.spare <= 1e6:
            raise RecipeError("balance.spare", self.spare, "1 to 1e6", "2 is the usual one")

    @property
    def wanted(self) -> frozenset[str]:
        """The statistics that have to be gathered."""
        return frozenset({"absmean"})

    def apply(self, work: Work) -> None:
        """Folds one scale per pair into the block, where some channel stands out."""
        for pair in work.pairs:
            absmean = work.absmean(pair.consumers)
            if absmean is None:
                work.notes.append(f"{pair.producer}: saw no calibration tokens, not balanced")
                continue
            scale = balancing_scale(pooled(pair, absmean, np.mean), self._size(work, pair), self.alpha, self.spare)
            if (scale != 1).any():
                fold(work, pair, scale)

    @staticmethod
    def _size(work: Work, pair: Pair) -> Floats:
        """Root mean square of each column over all consumers' rows."""
        rows = [work.weight(name) for name in (*pair.consumers, *pair.floats)]
        squares = np.sum([np.square(weight).sum(axis=0, dtype=np.float64) for weight in rows], axis=0)
        size: Floats = np.sqrt(squares / sum(map(len, rows))).astype(np.float32)
        return pooled(pair, size, np.mean)
