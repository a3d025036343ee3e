"""QuantEase's solver (Behdin et al., 2023): each column to its best code, all others as they are, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from subbyte import kernels
from subbyte.errors import NotFiniteError, RecipeError
from subbyte.solvers.base import Floats, Grid, Solved
from subbyte.solvers.gptq import Gptq
from subbyte.solvers.nearest import Nearest
from subbyte.tensors import QuantizedTensor

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["CoordinateDescent"]


@dataclass(frozen=True)
class CoordinateDescent:
    """Minimises `||X W^T - X Q^T||^2` by cyclic coordinate descent over the codes of a grid fitted to the weight.

    sweeps     passes over all columns
    relax      sweeps k with k % relax == 1, but for the last four, move columns without rounding them; 0: none does
    act_order  columns in the order of falling Hessian diagonal
    start      from the "weight" itself, or from the codes of "nearest" or "gptq" (which start lower with few sweeps)
    mse        search the range of each group for the smallest sum |Q(w) - w| ** 2.4, 80 steps of 0.01
    block      columns between two updates of the gradient: speed only
    """

    wanted: ClassVar[frozenset[str]] = frozenset({"gram"})
    sparse = False

    sweeps: int = 30
    relax: int = 3
    act_order: bool = False
    start: Literal["weight", "nearest", "gptq"] = "weight"
    mse: bool = False
    block: int = 128

    def __post_init__(self) -> None:
        if not 1 <= self.sweeps <= 1000:
            raise RecipeError("coordinate_descent.sweeps", self.sweeps, "1 to 1000", "30 is the usual number")
        if self.relax < 0:
            raise RecipeError("coordinate_descent.relax", self.relax, "0 or more", "3 is the usual one")
        if self.block < 1:
            raise RecipeError("coordinate_descent.block", self.block, "at least 1", "128 is the usual one")

    @property
    def indexed(self) -> bool:
        """Grids belong to neighbouring columns in any order of the descent."""
        return False

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32 with `stats.gram` [I, I], undamped: nothing is inverted.

        Without a single token there is no Hessian: rounds to nearest and says so. NotFiniteError where it is infinite.
        """
        nearest = Nearest(clip_search=self.mse)
        if stats is None or stats.tokens == 0:
            plain = nearest.solve(weight, scheme)
            return Solved(plain.tensor, plain.loss, "saw no calibration tokens: rounded to nearest")
        columns = weight.shape[1]
        hessian = np.asarray(stats.gram, dtype=np.float32) * np.float32(2 / stats.tokens)
        if not np.isfinite(hessian.diagonal()).all():
            raise NotFiniteError(
                f"Hessian of {name}", "NaN or infinity", "finite activations", "look for overflow in the model"
            )
        fitted, points = Grid(shrink_steps=80 if self.mse else 0).fit(weight, scheme)
        groups = 1 if scheme.granularity == "tensor" else scheme.groups(columns)
        scale, zero = (np.ascontiguousarray(np.broadcast_to(a, (len(weight), groups))) for a in (fitted, points))
        codes = None
        if self.start == "nearest":
            codes = nearest.solve(weight, scheme).tensor.codes()
        elif self.start == "gptq":
            first = Gptq(act_order=self.act_order, static_groups=True, mse=self.mse)
            codes = first.solve(weight, scheme, stats, name).tensor.codes()
        order = np.argsort(-hessian.diagonal(), kind="stable") if self.act_order else np.arange(columns)
        index = (order // max(columns // max(groups, 1), 1)).astype(np.int32)
        found, loss = kernels.coordinate_descent(
            np.ascontiguousarray(weight[:, order]),
            np.ascontiguousarray(hessian[np.ix_(order, order)]),
            scale,
            zero,
            index,
            scheme.bits,
            sweeps=self.sweeps,
            relax=self.relax,
            block=self.block,
            codes=None if codes is None else np.ascontiguousarray(codes[:, order]),
        )
        codes = np.empty_like(found)
        codes[:, order] = found
        tensor = QuantizedTensor.from_codes(codes, fitted, None if scheme.symmetric else points, scheme)
        return Solved(tensor, float(loss.sum(dtype=np.float64)))
