"""GPTQ's solver (Frantar et al., 2023): each column's rounding error is pushed into the columns to come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from subbyte import kernels
from subbyte.errors import NotFiniteError, RecipeError, SingularError
from subbyte.solvers.base import Floats, Grid, Solved, refuse_float_zero
from subbyte.solvers.nearest import Nearest
from subbyte.tensors import QuantizedTensor

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["Gptq"]


@dataclass(frozen=True)
class Gptq:
    """Minimises `||X W^T - X Q^T||^2` greedily, column after column, with the Cholesky factor of the inverse Hessian.

    act_order      columns in the order of falling Hessian diagonal
    static_groups  groups of consecutive columns get their grid before anything is rounded; False: when the column loop
                   reaches them, which with `act_order` makes groups of scattered columns (a group index is stored)
    damp           share of the mean of the diagonal that is added to it
    damp_retries   how often a Hessian that stays singular is tried again with ten times the damping
    mse            search the range of each group for the smallest sum |Q(w) - w| ** 2.4, 80 steps of 0.01
    fresh_groups   dynamic groups see every update so far; False: those up to the last block of `block` columns, as in
                   the released code
    block          columns between two updates of the rest of the matrix: speed only
    """

    wanted: ClassVar[frozenset[str]] = frozenset({"gram"})
    sparse = False

    act_order: bool = False
    static_groups: bool = False
    damp: float = 0.01
    damp_retries: int = 3
    mse: bool = False
    fresh_groups: bool = False
    block: int = 128

    def __post_init__(self) -> None:
        if not (self.damp >= 0 and math.isfinite(self.damp)):
            raise RecipeError("gptq.damp", self.damp, "a number >= 0", "0.01 is the usual one")
        if not 0 <= self.damp_retries <= 10:
            raise RecipeError("gptq.damp_retries", self.damp_retries, "0 to 10")
        if self.block < 1:
            raise RecipeError("gptq.block", self.block, "at least 1", "128 is the usual one")

    @property
    def indexed(self) -> bool:
        """Groups of columns that act-order brought together are scattered in the original order."""
        return self.act_order and not self.static_groups

    @property
    def grid(self) -> Grid:
        """The rule by which ranges become scales: zero is always inside, and an all-zero group gets the range -1..1."""
        return Grid(shrink_steps=80 if self.mse else 0)

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32 with `stats.gram` [I, I].

        Without a single token (an expert that no token reached) there is no Hessian: rounds to nearest and says so.
        Raises SingularError when the Hessian is singular at every damping, NotFiniteError when it is not finite.
        """
        refuse_float_zero(scheme)
        if stats is None or stats.tokens == 0:
            plain = Nearest(clip_search=self.mse).solve(weight, scheme)
            return Solved(plain.tensor, plain.loss, "saw no calibration tokens: rounded to nearest")
        columns = weight.shape[1]
        hessian = np.asarray(stats.gram, dtype=np.float32) * np.float32(2 / stats.tokens)
        diagonal = hessian.diagonal().copy()
        if not np.isfinite(diagonal).all():
            raise NotFiniteError(
                f"Hessian of {name}", "NaN or infinity", "finite activations", "look for overflow in the model"
            )
        # The grid of whole rows is fitted before dead columns are zeroed, that of groups after (as released).
        group = scheme.group(columns)
        by_row = scheme.granularity in ("channel", "tensor")
        if by_row:
            scale, zero = self.grid.fit(weight, scheme)
            scale, zero = (np.ascontiguousarray(np.broadcast_to(a, (len(weight), 1))) for a in (scale, zero))
            index = np.zeros(columns, np.int32)
        dead = diagonal == 0
        if dead.any():
            weight = np.where(dead, np.float32(0), weight)
            diagonal[dead] = 1
            hessian[dead, dead] = 1
        if not by_row and self.static_groups:
            scale, zero = self.grid.fit(weight, scheme)
            index = np.arange(columns, dtype=np.int32) // group
        order = np.argsort(-diagonal, kind="stable") if self.act_order else np.arange(columns)
        if self.act_order:
            weight = np.ascontiguousarray(weight[:, order])
            hessian = np.ascontiguousarray(hessian[np.ix_(order, order)])
        factor, note = self._factor(hessian, float(diagonal.mean(dtype=np.float64)), name)
        del hessian

        fixed = by_row or self.static_groups
        codes, scale, zero, _, loss = kernels.gptq(
            weight,
            factor,
            scheme.bits,
            group=group,
            symmetric=scheme.symmetric,
            narrow=scheme.narrow,
            scale_dtype=scheme.scale_dtype,
            fresh_groups=self.fresh_groups,
            block=self.block,
            **self.grid.kernel(),
            scale=scale if fixed else None,
            zero=zero if fixed else None,
            index=np.ascontiguousarray(index[order]) if fixed else None,
        )
        stored = None
        if self.act_order:
            place = np.argsort(order)  # where each original column went
            codes = np.ascontiguousarray(codes[:, place])
            if not fixed:
                stored = (place // group).astype(np.int32)
        if scheme.granularity == "tensor":
            scale, zero = scale[:1], zero[:1]
        tensor = QuantizedTensor.from_codes(codes, scale, None if scheme.symmetric else zero, scheme, stored)
        return Solved(tensor, float(loss.sum(dtype=np.float64)), note)

    def _factor(self, hessian: Floats, mean: float, name: str) -> tuple[Floats, str]:
        """Upper U with (H + damping)^-1 = U^T U, the damping raised tenfold as long as H stays singular."""
        raised = [max(self.damp, 0.001) * 10**k for k in range(1, self.damp_retries + 1)]
        for damp in (self.damp, *raised):
            try:
                factor = kernels.inverse_factor(hessian, damp * mean)
            except SingularError:
                continue
            return factor, "" if damp == self.damp else f"singular Hessian: damping raised to {damp:g}"
        raise SingularError(
            f"Hessian of {name}",
            f"singular even with {max(self.damp, *raised, 0):g} of its mean diagonal added",
            "a positive definite matrix",
            "use more or more varied calibration text, or raise damp or damp_retries",
        )
