"""Round to nearest on a grid fitted to each group, integers or a table of values: no data needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from subbyte import kernels
from subbyte.errors import RecipeError
from subbyte.schemes import Table
from subbyte.solvers.base import Floats, Grid, Solved, by_column, largest, lost
from subbyte.tensors import QuantizedTensor, TableTensor

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["Nearest"]


@dataclass(frozen=True)
class Nearest:
    """Codes `clamp(rint(w / scale) + zero, 0, 2^b - 1)`, ties to even.

    forced_zero   the range always holds zero (GPTQ, compressed-tensors); False: the plain minimum and maximum (AWQ)
    eps           smallest range: AWQ and SmoothQuant take 1e-5; 0 makes an all-zero group the range -1..1
    clip_search   shrink the range of each group in `shrink_steps` steps of 1 / `shrink_grid`, keep the smallest
                  sum |Q(w) - w| ** `norm` (80 steps of 0.01 and norm 2.4 are those of GPTQ's code)
    A table's values are scaled by the largest magnitude of each group, and none of these apply.
    """

    wanted: ClassVar[frozenset[str]] = frozenset()
    sparse = False

    forced_zero: bool = True
    eps: float = 0.0
    clip_search: bool = False
    norm: float = 2.4
    shrink_grid: int = 100
    shrink_steps: int = 80

    def __post_init__(self) -> None:
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise RecipeError("nearest.eps", self.eps, "a number >= 0")
        if not (self.norm > 0 and math.isfinite(self.norm)):
            raise RecipeError("nearest.norm", self.norm, "a number > 0", "2.4 is the usual one")
        if not 1 <= self.shrink_steps <= self.shrink_grid:
            raise RecipeError("nearest.shrink_steps", self.shrink_steps, f"1 to shrink_grid ({self.shrink_grid})")

    @property
    def indexed(self) -> bool:
        """Groups are always neighbouring columns."""
        return False

    @property
    def grid(self) -> Grid:
        """The rule by which ranges become scales."""
        steps = self.shrink_steps if self.clip_search else 0
        return Grid(self.forced_zero, self.eps, self.norm, self.shrink_grid, steps)

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32; `stats` is not looked at. The loss is half the squared error of the weight."""
        if scheme.by_input:
            return by_column(self, weight, scheme, name)
        if isinstance(scheme.element, Table):
            return lost(TableTensor.nearest(weight, largest(weight, scheme), scheme), weight)
        scale, zero = self.grid.fit(weight, scheme)
        rows = weight.reshape(1, -1) if scheme.granularity == "tensor" else weight
        codes = kernels.quantize_affine(rows, scale, zero, scheme.bits, group=scheme.group(rows.shape[1]))
        tensor = QuantizedTensor.from_codes(
            codes.reshape(weight.shape), scale, None if scheme.symmetric else zero, scheme
        )
        return lost(tensor, weight)
