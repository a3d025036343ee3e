"""Smooth: SmoothQuant's migration of activation outliers into the weights (Xiao et al., 2023, eq. 3 and 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from subbyte.errors import NotFiniteError, RecipeError
from subbyte.transforms.base import Floats, Work, rounded
from subbyte.transforms.fold import fold, pooled

if TYPE_CHECKING:
    from subbyte.anatomy import Pair
    from subbyte.schemes import Scheme

__all__ = ["ALPHAS", "Smooth", "smoothing_scale"]

ALPHAS = tuple(round(0.3 + 0.05 * i, 2) for i in range(14))
"""0.3, 0.35 ... 0.95: the authors' search."""
SMALLEST = np.float32(1e-5)


def smoothing_scale(activations: Floats, weights: Floats, alpha: float) -> Floats:
    """s_j = act_j ** alpha / w_j ** (1 - alpha) with w_j and s_j clamped to at least 1e-5 (eq. 4).

    activations, weights   [C] f32: largest magnitude of each input channel, of each weight column over all consumers
    A channel that is never active gets 1e-5 for alpha > 0; it stays zero.
    """
    weights = np.maximum(weights, SMALLEST)
    scale: Floats = np.maximum(activations**alpha / weights ** (1 - alpha), SMALLEST).astype(np.float32)
    return scale


@dataclass(frozen=True)
class Smooth:
    """Divides the inputs of linears behind a norm by eq. 4's factor, and multiplies their weights.

    alpha        how much of the difficulty moves into the weights; "search" takes for each pair the one of 0.3, 0.35
                 ... 0.95 with the smallest squared error of the consumers' outputs on sampled tokens
    extra_sites  also values -> output projection (pooled over grouped queries) and up -> down projection, which the
                 paper leaves to per-token scales
    """

    alpha: float | Literal["search"] = 0.5
    extra_sites: bool = False

    def __post_init__(self) -> None:
        if self.alpha != "search" and not (isinstance(self.alpha, int | float) and 0 <= self.alpha <= 1):
            raise RecipeError("smooth.alpha", self.alpha, "0 to 1, or 'search'", "0.5 for OPT, 0.8 to 0.9 for Llama")

    @property
    def wanted(self) -> frozenset[str]:
        """The statistics that have to be gathered."""
        return frozenset({"absmax", "sample"} if self.alpha == "search" else {"absmax"})

    def apply(self, work: Work) -> None:
        """Folds one scale per pair into the block."""
        for pair in work.pairs:
            if pair.kind != "norm" and not self.extra_sites:
                continue
            seen = work.seen(pair.consumers)
            if not seen:
                work.notes.append(f"{pair.producer}: saw no calibration tokens, not smoothed")
                continue
            act = pooled(pair, np.max([np.asarray(stats.absmax) for stats in seen], axis=0), np.max)
            columns = [np.abs(work.weight(name)).max(axis=0) for name in (*pair.consumers, *pair.floats)]
            size = pooled(pair, np.max(columns, axis=0), np.max)
            alpha = self.alpha
            if alpha == "search":
                alpha = self._search(work, pair, act, size)
                work.notes.append(f"{pair.producer}: alpha {alpha:g}")
            fold(work, pair, smoothing_scale(act, size, alpha))

    def _search(self, work: Work, pair: Pair, act: Floats, size: Floats) -> float:
        """The alpha with the smallest error of the consumers' outputs when weights and inputs are both rounded."""
        from subbyte.calibration import grid_search

        seen = [name for name in pair.consumers if work.seen([name])]
        sites = [(work.weight(name), np.asarray(work.stats[name].sample), work.schemes[name]) for name in seen]

        def loss(alpha: float) -> float:
            scale = smoothing_scale(act, size, alpha)
            total = 0.0
            for weight, x, scheme in sites:
                quantized = rounded(weight * scale, scheme, forced_zero=True, eps=1e-5)
                inputs = _rounded_inputs(x / scale, float((act / scale).max()), work.activations)
                error = inputs @ quantized.T - x @ weight.T
                total += float(np.vdot(error, error))
            return total

        try:
            return grid_search(loss, ALPHAS)[0]
        except NotFiniteError:
            work.notes.append(f"{pair.producer}: no alpha gave a finite loss")
            return 0.5


def _rounded_inputs(x: NDArray[Any], absmax: float, scheme: Scheme | None) -> NDArray[Any]:
    """Inputs [T, C] after a round trip through their integer codes."""
    if scheme is None:
        return x
    largest = np.abs(x).max(axis=1, keepdims=True) if scheme.granularity == "token" else np.float32(absmax)
    top = 2 ** (scheme.bits - 1)
    scale = np.maximum(largest, SMALLEST) / np.float32(top - 1 if scheme.narrow else top - 0.5)
    codes: NDArray[Any] = np.clip(np.rint(x / scale), -top, top - 1)
    inputs: NDArray[Any] = codes * scale
    return inputs
