"""PowerQuant's solver (Yvinec et al., 2023): an exponent brings uniform steps to where the weights are; no data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from subbyte.errors import RecipeError, SchemeError
from subbyte.schemes import EXPONENTS, Power
from subbyte.solvers.base import Floats, Solved, largest, lost
from subbyte.tensors import TableTensor

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["PowerSearch", "errors"]

Doubles = NDArray[np.float64]
COARSE, FINE = np.arange(10, 151) / 100, np.arange(-10, 11) / 1000
"""Exponents that are tried, and then those around the best."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class PowerSearch:
    """Exponents with the least squared error of the weight, each weight by its nearest power; scales max|w|.

    scope         what shares an exponent: the whole "model", a "layer", or a "channel" (one output)
    exponent      of all layers, in place of a search; None: searched
    clip_search   shrink the scale of each group in `shrink_steps` steps of 1 / `shrink_grid`, keep the least error, and
                  search the exponent again: at 2 bits no exponent helps without
    """

    wanted: ClassVar[frozenset[str]] = frozenset()
    indexed = False
    sparse = False

    scope: Literal["model", "layer", "channel"] = "layer"
    exponent: float | None = None
    clip_search: bool = False
    shrink_grid: int = 50
    shrink_steps: int = 40

    def __post_init__(self) -> None:
        least, most = EXPONENTS
        if self.exponent is not None and not least <= self.exponent <= most:
            raise RecipeError("power_search.exponent", self.exponent, f"{least:g} to {most:g}", "0.5 is a common one")
        if not 1 <= self.shrink_steps <= self.shrink_grid:
            raise RecipeError("power_search.shrink_steps", self.shrink_steps, f"1 to shrink_grid ({self.shrink_grid})")

    def over(self, weights: Callable[[], Iterable[tuple[Floats, Scheme]]]) -> PowerSearch:
        """This solver with the exponent that suits all weights of a model together, which are gone through twice."""

        def total(exponents: Doubles) -> Doubles:
            sums = (errors(weight, largest(weight, scheme), scheme.bits, exponents) for weight, scheme in weights())
            return sum(sums, np.zeros(len(exponents)))

        return replace(self, exponent=_least(total))

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32; `stats` is not looked at. The loss is half the squared error of the weight.

        With the scope "model" and no exponent yet, the layer is the model. Raises SchemeError for an element other than
        `Power`, by row exactly where the scope is "channel".
        """
        if not isinstance(scheme.element, Power) or scheme.element.by_row != (self.scope == "channel"):
            wanted = f"power{scheme.bits}{'r' if self.scope == 'channel' else ''}/channel"
            raise SchemeError(f"scheme of {name}", scheme, f"an element such as in {wanted}", f"scope {self.scope}")
        scale = largest(weight, scheme)
        exponent = self._exponents(weight, scale, scheme)
        if self.clip_search:
            scale = self._clipped(weight, scale, scheme, exponent)
            exponent = self._exponents(weight, scale, scheme)
            scale = self._clipped(weight, largest(weight, scheme), scheme, exponent)
        return lost(TableTensor.nearest(weight, scale, scheme, exponent), weight)

    def _exponents(self, weight: Floats, scale: Floats, scheme: Scheme) -> NDArray[np.float16]:
        """[1], or one for each row."""
        rows = len(weight) if self.scope == "channel" else 1
        if self.exponent is not None or not weight.size:
            return np.full(rows, self.exponent or 1, np.float16)
        scale = np.broadcast_to(scale, (len(weight), scale.shape[1]))
        parts = zip(np.split(weight, rows), np.split(scale, rows), strict=True)
        return np.array([_least(partial(errors, own, units, scheme.bits)) for own, units in parts], np.float16)

    def _clipped(self, weight: Floats, scale: Floats, scheme: Scheme, exponent: NDArray[np.float16]) -> Floats:
        """The scale of each group with the least error, out of fractions of its largest magnitude."""
        best, least = scale, np.full(scale.shape, np.inf)
        for step in range(self.shrink_steps):
            tried = scheme.held(scale * np.float32(1 - step / self.shrink_grid))
            missed = np.square(TableTensor.nearest(weight, tried, scheme, exponent).dequantize() - weight)
            error = missed.reshape(*scale.shape, -1).sum(axis=2, dtype=np.float64)
            best, least = np.where(error < least, tried, best), np.minimum(error, least)
        return best


def errors(weight: Floats, scale: Floats, bits: int, exponents: Doubles) -> Doubles:
    """Squared errors of a weight [O, I] on power grids of scales [O, G] or [1, 1], by exponent [E]: exactly.

    Magnitudes between two boundaries all go to one value, so that sums over the sorted magnitudes suffice.
    """
    top = (1 << bits - 1) - 1
    roots = 1 / exponents[:, None]
    bounds, values = ((np.arange(1, top + 1) - 0.5) / top) ** roots, (np.arange(top + 1) / top) ** roots
    total = np.zeros(len(exponents))
    for magnitudes, squares in _chunks(weight, scale):
        order = np.argsort(magnitudes)
        magnitudes, squares = magnitudes[order], squares[order]
        places = np.searchsorted(magnitudes, bounds)
        ends = np.pad(places, ((0, 0), (1, 1)), constant_values=((0, 0), (0, len(order))))
        for factor, sign in ((1.0, values**2), (magnitudes, -2 * values), (magnitudes**2, np.ones_like(values))):
            sums = np.concatenate([[0.0], np.cumsum(squares * factor)])
            total += (sign * np.diff(sums[ends], axis=1)).sum(axis=1)
    return np.maximum(total, 0)


def _chunks(weight: Floats, scale: Floats) -> Iterator[tuple[Doubles, Doubles]]:
    """Magnitudes in units of their scale, and the squares of these scales, some rows at a time."""
    rows = max(1, CHUNK // max(weight.shape[1], 1))
    for first in range(0, len(weight), rows):
        own = weight[first : first + rows].astype(np.float64)
        units = scale if len(scale) == 1 else scale[first : first + rows]
        groups = np.abs(own).reshape(len(own), units.shape[1], -1)
        squares = np.square(units[:, :, None], dtype=np.float64)
        yield (groups / units[:, :, None]).ravel(), np.broadcast_to(squares, groups.shape).ravel()


def _least(total: Callable[[Doubles], Doubles]) -> float:
    """The exponent with the least error: the error jumps a little on its way down, so that many are tried."""
    best = COARSE[np.argmin(total(COARSE))]
    near = best + FINE
    return float(near[np.argmin(total(near))])
