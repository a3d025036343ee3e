"""ChooseDimension: groups along the inputs or along the outputs of each layer (AdaDim, Heo et al., 2023, section 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from subbyte.errors import RecipeError, ShapeError
from subbyte.transforms.base import Work, rounded

if TYPE_CHECKING:
    from subbyte.calibration import Call

__all__ = ["ChooseDimension"]


@dataclass(frozen=True)
class ChooseDimension:
    """Each linear gets the direction of groups with the smaller mean squared error where its output is inspected, when
    rounded to nearest: linears that read one input (q, k, v; gate, up) at the output of the module around them, others
    at their own. Weights stay as they are; the scheme says `by_input` where that direction won, strictly.

    Linears are judged in order, on the inputs of the float block, with those before them rounded as was chosen. Where
    only one direction has groups of that size, it is taken, and the notes say so.

    forced_zero, eps   the grid that is rounded to
    """

    forced_zero: bool = False
    eps: float = 1e-5

    wanted: ClassVar[frozenset[str]] = frozenset({"gram"})

    def __post_init__(self) -> None:
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise RecipeError("choose_dimension.eps", self.eps, "a number >= 0")

    def apply(self, work: Work) -> None:
        """Settles `work.schemes`."""
        inspected = {name: pair.inspect for pair in work.pairs for name in pair.consumers}
        modules = {module for name, module in inspected.items() if name != module and name in work.schemes}
        calls = {module: work.block.capture(module, work.hidden) for module in sorted(modules)}
        original = {name: work.weight(name).copy() for name in work.schemes}
        try:
            for name in original:
                losses = self.losses(work, name, inspected.get(name, name), calls.get(inspected.get(name, name), ()))
                if len(losses) == 1:
                    work.notes.append(f"{name}: no choice, groups of that size run one way only")
                best = min(losses, key=losses.__getitem__)  # the first of equals: along the inputs
                work.schemes[name] = replace(work.schemes[name], by_input=best)
                work.weight(name)[...] = self._rounded(work, name, best)
        finally:
            for name, weight in original.items():
                work.weight(name)[...] = weight

    def losses(self, work: Work, name: str, inspect: str, calls: Sequence[Call]) -> dict[bool, float]:
        """The error of each direction that `name` can take, by whether it is `by_input`.

        inspect, calls   the module at whose output it is measured, and how that is called; the linear itself: none
        """
        weight, found = work.weight(name), {}
        original, wanted = weight.copy(), work.block.run(inspect, calls) if calls else None
        for by_input in (False, True):
            try:
                weight[...] = self._rounded(work, name, by_input)
            except ShapeError:
                continue
            if wanted is not None:
                found[by_input] = float((work.block.run(inspect, calls) - wanted).square_().mean())
            else:
                stats, difference = work.stats[name], weight - original
                total = float(np.vdot(difference @ np.asarray(stats.gram), difference))
                found[by_input] = total / max(stats.tokens * len(weight), 1)
            weight[...] = original
        return found

    def _rounded(self, work: Work, name: str, by_input: bool) -> np.ndarray:
        scheme = replace(work.schemes[name], by_input=by_input)
        return rounded(work.weight(name), scheme, self.forced_zero, self.eps)
