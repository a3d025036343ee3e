"""ActivationAwareScale, ActivationAwareClip: the two searches of AWQ (Lin et al., 2024, section 3.2, released code)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subbyte import kernels
from subbyte.errors import NotFiniteError, RecipeError
from subbyte.transforms.base import Floats, Work, rounded
from subbyte.transforms.fold import fold, pooled

if TYPE_CHECKING:
    import torch

    from subbyte.anatomy import Pair

__all__ = ["ActivationAwareClip", "ActivationAwareScale", "candidate"]

QUERY_OR_KEY = re.compile(r"(^|_)(q|k)_|query|key|qkv", re.IGNORECASE)
"""Their product reacts to both, so a clip that is good for one alone is not reliable."""
PART = 512
"""Tokens of the first look at a candidate: enough to tell the better half, and to keep the cores busy."""


def candidate(absmean: Floats, ratio: float, weight_mean: Floats | None = None, spare_dead: bool = False) -> Floats:
    """The scale [C] for one exponent: max(a ** r, 1e-4), divided by sqrt(max * min) so that it straddles 1.

    absmean      [C] f32, mean magnitude of each input channel
    weight_mean  [C] f32: also divide by w ** (1 - r) ("duo")
    spare_dead   channels that are always zero get 1 and no say in the normalisation
    """
    scale: Floats = absmean.astype(np.float32) ** np.float32(ratio)
    if weight_mean is not None:
        scale = scale / (weight_mean ** np.float32(1 - ratio) + np.float32(1e-4))
    scale = np.maximum(scale, np.float32(1e-4))
    alive = absmean > 0 if spare_dead and (absmean > 0).any() else np.ones(len(absmean), bool)
    scale = scale / np.sqrt(scale[alive].max() * scale[alive].min())
    scale[~alive | ~np.isfinite(scale)] = 1
    return scale


@dataclass(frozen=True)
class ActivationAwareScale:
    """For each pair the scale s = a ** r, r = 0, 1/grid ... (grid-1)/grid, with the smallest error of the inspected
    module when its linears hold Q(W s) / s. All pairs are searched on the original weights, then all are applied.

    grid         exponents tried; the first is 0: s = 1, plain rounding to nearest
    exhaustive   a module that is more than a linear is run on all tokens for every exponent, as released; else those
                 that do worse on the first ones are dropped (`calibration.halving_search`): the more tokens, the larger
                 the share that is saved
    inclusive    r = 0, 1/(grid-1) ... 1 instead, as in the paper's text
    duo          s = a ** r / w ** (1 - r), w the mean of |weight| / max|weight| of its group; s = 1 is tried first
    grouped      also values -> output where query heads share a key-value head, the mean pooled over these
    spare_dead   leave channels that are always zero at 1 instead of at 1e-4 before normalisation
    forced_zero, eps   the grid that Q rounds to
    """

    grid: int = 20
    exhaustive: bool = False
    inclusive: bool = False
    duo: bool = False
    grouped: bool = False
    spare_dead: bool = False
    forced_zero: bool = False
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if not 1 <= self.grid <= 1000:
            raise RecipeError("activation_aware_scale.grid", self.grid, "1 to 1000", "20 is the paper's")
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise RecipeError("activation_aware_scale.eps", self.eps, "a number >= 0")

    @property
    def wanted(self) -> frozenset[str]:
        """The statistics that have to be gathered: the Gram matrix gives the output error of a single linear."""
        return frozenset({"absmean", "gram"})

    def apply(self, work: Work) -> None:
        """Searches every pair, then folds the scales found."""
        found = []
        for pair in work.pairs:
            if pair.repeats > 1 and not self.grouped:
                continue
            absmean = work.absmean(pair.consumers)
            if absmean is None:
                work.notes.append(f"{pair.producer}: saw no calibration tokens, not scaled")
                continue
            found.append((pair, self._search(work, pair, pooled(pair, absmean, np.mean))))
        for pair, scale in found:
            if (scale != 1).any():
                fold(work, pair, scale)

    def candidates(self, absmean: Floats, weight_mean: Floats | None) -> list[Floats]:
        """The scales that are tried, in order."""
        steps = max(self.grid - 1, 1) if self.inclusive else self.grid
        tried = [candidate(absmean, k / steps, weight_mean, self.spare_dead) for k in range(self.grid)]
        return tried if weight_mean is None else [np.ones_like(absmean), *tried]

    def _search(self, work: Work, pair: Pair, absmean: Floats) -> Floats:
        weight_mean = pooled(pair, self._weight_mean(work, pair), np.mean) if self.duo else None
        scales = self.candidates(absmean, weight_mean)
        search = self._search_linear if pair.inspect in pair.consumers else self._search_module
        with np.errstate(over="ignore", invalid="ignore"):  # a candidate without a finite loss is skipped below
            try:
                best = search(work, pair, scales)
            except NotFiniteError:
                work.notes.append(f"{pair.producer}: no scale gave a finite loss, left as it was")
                return np.ones_like(absmean)
        return scales[best]

    def _rounded(self, work: Work, name: str, weight: Floats, scale: Floats) -> Floats:
        return rounded(weight * scale, work.schemes[name], self.forced_zero, self.eps) / scale

    def _search_linear(self, work: Work, pair: Pair, scales: list[Floats]) -> int:
        """The scale with the least output error of one linear, from its Gram matrix: sum of D G D^T over its rows."""
        from subbyte.calibration import grid_search

        (name,) = pair.consumers
        weight, stats = work.weight(name), work.stats[name]
        gram = np.asarray(stats.gram)

        def loss(k: int) -> float:
            difference = self._rounded(work, name, weight, scales[k]) - weight
            return float(np.vdot(difference @ gram, difference))

        return grid_search(loss, range(len(scales)))[0]

    def _search_module(self, work: Work, pair: Pair, scales: list[Floats]) -> int:
        """The scale with the least squared error of the inspected module's output, its linears rounded and put back."""
        from subbyte.calibration import grid_search, halving_search

        inputs = work.block.capture(pair.inspect, work.hidden, max(1, PART // work.hidden.shape[1]))
        wanted: list[torch.Tensor] = []
        original = {name: work.weight(name).copy() for name in pair.consumers}

        def loss(k: int, part: slice) -> float:
            wanted.extend(work.block.run(pair.inspect, [call]) for call in inputs[len(wanted) : part.stop])
            try:
                for name, weight in original.items():
                    work.weight(name)[...] = self._rounded(work, name, weight, scales[k])
                found = (work.block.run(pair.inspect, [call]) for call in inputs[part])
                return sum(float((y - w).square_().sum()) for y, w in zip(found, wanted[part], strict=True))
            finally:
                for name, weight in original.items():
                    work.weight(name)[...] = weight

        if self.exhaustive:
            return grid_search(lambda k: loss(k, slice(0, len(inputs))), range(len(scales)))[0]
        return halving_search(loss, range(len(scales)), len(inputs))[0]

    def _weight_mean(self, work: Work, pair: Pair) -> Floats:
        """Mean over all consumers' rows of |w| relative to the largest of its group."""
        parts = []
        for name in pair.consumers:
            work.schemes[name].refuse_by_input("activation_aware_scale with duo")
            size = np.abs(work.weight(name))
            groups = size.reshape(len(size), -1, work.schemes[name].group(size.shape[1]))
            parts.append((groups / (groups.max(axis=2, keepdims=True) + np.float32(1e-6))).reshape(size.shape))
        mean: Floats = np.concatenate(parts).mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean


@dataclass(frozen=True)
class ActivationAwareClip:
    """Clips each group of a row to m = max|w| (1 - i / shrink_grid), i < shrink_steps, with the smallest mean squared
    error of the group's share of the output on sampled tokens. Queries and keys are left out.

    forced_zero, eps   the grid that is rounded to
    """

    shrink_grid: int = 20
    shrink_steps: int = 10
    forced_zero: bool = False
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if not 1 <= self.shrink_steps <= self.shrink_grid:
            what = "activation_aware_clip.shrink_steps"
            raise RecipeError(
                what, self.shrink_steps, f"1 to shrink_grid ({self.shrink_grid})", "10 of 20 is the paper's"
            )
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise RecipeError("activation_aware_clip.eps", self.eps, "a number >= 0")

    @property
    def wanted(self) -> frozenset[str]:
        """The statistics that have to be gathered."""
        return frozenset({"sample"})

    def apply(self, work: Work) -> None:
        """Clamps the weights in place."""
        for name, scheme in work.schemes.items():
            if QUERY_OR_KEY.search(name.rpartition(".")[2]) or not work.seen([name]):
                continue
            scheme.refuse_by_input("activation_aware_clip")
            weight = work.weight(name)
            group = scheme.group(weight.shape[1])
            x = np.asarray(work.stats[name].sample, np.float32)
            parts = np.ascontiguousarray(x.reshape(len(x), -1, group).transpose(1, 0, 2))
            clip = kernels.search_clip(
                weight,
                parts.transpose(0, 2, 1) @ parts / np.float32(len(x)),
                scheme.bits,
                group,
                symmetric=scheme.symmetric,
                narrow=scheme.narrow,
                forced_zero=self.forced_zero,
                eps=self.eps,
                scale_dtype=scheme.scale_dtype,
                shrink_grid=self.shrink_grid,
                shrink_steps=self.shrink_steps,
            )[:, :, None]
            groups = weight.reshape(len(weight), -1, group)
            np.clip(groups, -clip, clip, out=groups)
