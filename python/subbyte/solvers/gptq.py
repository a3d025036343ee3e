"""GPTQ's solver (Frantar et al., 2023): each column's rounding error is pushed into the columns to come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.solvers.base import Floats, Grid, Solved, check_loop, damped, damped_factor, hessian, refuse_float_zero
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
        check_loop("gptq", self.damp, self.damp_retries, self.block, "0.01")

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

        With `scheme.by_input` every column has scales of its own, of groups of outputs, fitted at its turn (Heo et
        al., 2023): act-order then needs no index, and `static_groups` says nothing.
        Without a single token (an expert that no token reached) there is no Hessian: rounds to nearest and says so.
        Raises SingularError when the Hessian is singular at every damping, NotFiniteError when it is not finite.
        """
        refuse_float_zero(scheme)
        if stats is None or stats.tokens == 0:
            plain = Nearest(clip_search=self.mse).solve(weight, scheme)
            return Solved(plain.tensor, plain.loss, "saw no calibration tokens: rounded to nearest")
        columns = weight.shape[1]
        moments = hessian(stats, name)
        diagonal = moments.diagonal().copy()
        # The grid of whole rows is fitted before dead columns are zeroed, that of groups after (as released).
        group = scheme.group(scheme.along(weight.shape))
        by_row = scheme.granularity in ("channel", "tensor") and not scheme.by_input
        if by_row:
            scale, zero = self.grid.fit(weight, scheme)
            scale, zero = (np.ascontiguousarray(np.broadcast_to(a, (len(weight), 1))) for a in (scale, zero))
            index = np.zeros(columns, np.int32)
        dead = diagonal == 0
        if dead.any():
            weight = np.where(dead, np.float32(0), weight)
            diagonal[dead] = 1
            moments[dead, dead] = 1
        if not by_row and not scheme.by_input and self.static_groups:
            scale, zero = self.grid.fit(weight, scheme)
            index = np.arange(columns, dtype=np.int32) // group
        order = np.argsort(-diagonal, kind="stable") if self.act_order else np.arange(columns)
        if self.act_order:
            weight = np.ascontiguousarray(weight[:, order])
            moments = np.ascontiguousarray(moments[np.ix_(order, order)])
        mean = float(diagonal.mean(dtype=np.float64))
        factor, note = damped(partial(damped_factor, moments, mean), self.damp, self.damp_retries, name)
        del moments
        if scheme.by_input:
            tensor, missed = self._by_input(weight, factor, order, scheme)
            return Solved(tensor, missed, note)

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

    def _by_input(
        self, weight: Floats, factor: Floats, order: NDArray[np.intp], scheme: Scheme
    ) -> tuple[QuantizedTensor, float]:
        """The column loop on W^T, where a column lies in one piece; `weight` and `factor` stand in `order`."""
        grid, rows = Grid(False, 1e-5, shrink_steps=self.grid.shrink_steps), replace(scheme, by_input=False)
        group = rows.group(len(weight))
        left = np.ascontiguousarray(weight.T)
        scale = np.empty((len(left), rows.groups(len(weight))), np.float32)
        zero, codes = np.empty(scale.shape, np.uint8), np.empty(left.shape, np.uint8)
        missed = np.empty_like(left)
        for start in range(0, len(left), self.block):
            end = min(start + self.block, len(left))
            for j in range(start, end):
                one = slice(j, j + 1)
                scale[one], zero[one] = grid.fit(left[one], rows)
                codes[one] = kernels.quantize_affine(left[one], scale[one], zero[one], rows.bits, group=group)
                back = kernels.dequantize_affine(codes[one], scale[one], zero[one], group=group)
                missed[one] = (left[one] - back) / factor[j, j]
                left[j + 1 : end] -= factor[j, j + 1 : end, None] * missed[one]
            left[end:] -= factor[start:end, end:].T @ missed[start:end]
        place = np.argsort(order)
        turned = QuantizedTensor.from_codes(codes[place], scale[place], zero[place], rows)
        tensor = QuantizedTensor.transposed(turned)
        return tensor, float(np.square(missed, dtype=np.float64).sum()) / 2
