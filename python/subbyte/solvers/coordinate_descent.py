"""QuantEase's solver (Behdin et al., 2023): each column to its best code, all others as they are, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.errors import RecipeError
from subbyte.outliers import largest, largest_columns
from subbyte.solvers.base import Floats, Grid, Solved, hessian
from subbyte.solvers.gptq import Gptq
from subbyte.solvers.nearest import Nearest
from subbyte.tensors import Decomposition, Kept, QuantizedTensor, Sparse

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["CoordinateDescent"]

_Grids = tuple[Floats, NDArray[np.uint8]]


@dataclass(frozen=True)
class CoordinateDescent:
    """Minimises `||X W^T - X Q^T||^2` by cyclic coordinate descent over the codes of a grid fitted to the weight.

    With outliers, Q is the sum of the codes' weight B and a matrix H with few entries, and each sweep over B is
    followed by one step of iterative hard thresholding on H.

    sweeps     passes over all columns
    relax      sweeps k with k % relax == 1, but for the last four, move columns without rounding them; 0: none does
    act_order  columns in the order of falling Hessian diagonal
    start      from the "weight" itself, or from the codes of "nearest" or "gptq" (which start lower with few sweeps)
    mse        search the range of each group for the smallest sum |Q(w) - w| ** 2.4, 80 steps of 0.01
    block      columns between two updates of the gradient: speed only
    outliers   share of the weights that H keeps in 16 bits: the largest, one by one
    structured whole columns instead, that share of them
    step       of H, in units of 1 / (2 * the largest eigenvalue of the Hessian); up to 2 the error never rises
    """

    wanted: ClassVar[frozenset[str]] = frozenset({"gram"})

    sweeps: int = 30
    relax: int = 3
    act_order: bool = False
    start: Literal["weight", "nearest", "gptq"] = "weight"
    mse: bool = False
    block: int = 128
    outliers: float = 0.0
    structured: bool = False
    step: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.sweeps <= 1000:
            raise RecipeError("coordinate_descent.sweeps", self.sweeps, "1 to 1000", "30 is the usual number")
        if self.relax < 0:
            raise RecipeError("coordinate_descent.relax", self.relax, "0 or more", "3 is the usual one")
        if self.block < 1:
            raise RecipeError("coordinate_descent.block", self.block, "at least 1", "128 is the usual one")
        if not 0 <= self.outliers < 1:
            raise RecipeError("coordinate_descent.outliers", self.outliers, "0 to 1, 1 excluded", "try 0.01")
        if not 0 < self.step <= 2:
            raise RecipeError("coordinate_descent.step", self.step, "above 0, at most 2", "1 is the usual one")
        if self.outliers and self.start != "weight":
            raise RecipeError("coordinate_descent.start", self.start, "weight, where outliers are kept")

    @property
    def sparse(self) -> bool:
        """With outliers."""
        return self.outliers > 0

    @property
    def indexed(self) -> bool:
        """Grids belong to neighbouring columns in any order of the descent."""
        return False

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32 with `stats.gram` [I, I], undamped: nothing is inverted.

        Without a single token there is no Hessian: rounds to nearest and says so. NotFiniteError where it is infinite.
        """
        scheme.refuse_by_input("coordinate_descent")
        nearest = Nearest(clip_search=self.mse)
        if stats is None or stats.tokens == 0:
            plain = nearest.solve(weight, scheme)
            return Solved(plain.tensor, plain.loss, "saw no calibration tokens: rounded to nearest")
        columns = weight.shape[1]
        moments = hessian(stats, name)
        order = np.argsort(-moments.diagonal(), kind="stable") if self.act_order else np.arange(columns)
        groups = 1 if scheme.granularity == "tensor" else scheme.groups(columns)
        descent = _Descent(
            self,
            scheme,
            weight,
            np.ascontiguousarray(moments[np.ix_(order, order)]),
            order,
            (order // max(columns // max(groups, 1), 1)).astype(np.int32),
        )
        if round(self.outliers * (columns if self.structured else weight.size)):
            return descent.with_outliers()
        values = None
        if self.start == "nearest":
            values = nearest.solve(weight, scheme).tensor.dequantize()
        elif self.start == "gptq":
            first = Gptq(act_order=self.act_order, static_groups=True, mse=self.mse)
            values = first.solve(weight, scheme, stats, name).tensor.dequantize()
        grid = self._grid.fit(weight, scheme)
        codes, loss, _ = descent.sweep(weight, grid, values, None)
        return Solved(descent.tensor(codes, grid), float(loss.sum(dtype=np.float64)))

    @property
    def _grid(self) -> Grid:
        return Grid(shrink_steps=80 if self.mse else 0)


@dataclass(frozen=True)
class _Descent:
    """One weight and what is to be done to it; columns are in the order of the descent only inside `sweep`.

    hessian   [I, I] f32, in that order
    order     [I]: the column that stands at each place
    index     [I] i32: its group
    """

    solver: CoordinateDescent
    scheme: Scheme
    weight: Floats
    hessian: Floats
    order: NDArray[np.intp]
    index: NDArray[np.int32]

    def sweep(
        self, target: Floats, grid: _Grids, start: Floats | None, only: int | None
    ) -> tuple[NDArray[np.uint8], Floats, Floats]:
        """Codes, loss and values for `target` [O, I], by all sweeps or `only` one."""
        shape = len(target), int(self.index.max(initial=-1)) + 1
        scale, zero = (np.ascontiguousarray(np.broadcast_to(part, shape)) for part in grid)
        codes, loss, values = kernels.coordinate_descent(
            np.ascontiguousarray(target[:, self.order]),
            self.hessian,
            scale,
            zero,
            self.index,
            self.scheme.bits,
            sweeps=self.solver.sweeps,
            relax=self.solver.relax,
            block=self.solver.block,
            start=None if start is None else np.ascontiguousarray(start[:, self.order]),
            only=only,
        )
        back = np.argsort(self.order)
        return codes[:, back], loss, values[:, back]

    def tensor(self, codes: NDArray[np.uint8], grid: _Grids) -> QuantizedTensor:
        """The codes [O, I] on their grid."""
        scale, zero = grid
        return QuantizedTensor.from_codes(
            np.ascontiguousarray(codes), scale, None if self.scheme.symmetric else zero, self.scheme
        )

    def with_outliers(self) -> Solved:
        """Codes and outliers in turns (Behdin et al., 2023, algorithm 3)."""
        weight = self.weight
        apart, columns = self.project(weight)
        values, grid = weight - apart, self.solver._grid.fit(self.trimmed(), self.scheme)
        codes: NDArray[np.uint8]
        step = self.step()
        for sweep in range(self.solver.sweeps):
            if self.solver.structured:
                others = weight.copy()
                others[:, columns] = 0  # zero is inside every range
                grid = self.solver._grid.fit(others, self.scheme)
            codes, _, values = self.sweep(weight - apart, grid, values, sweep)
            apart, columns = self.project(apart + step * self.gradient(weight - values - apart))
        dense = self.tensor(codes, grid)
        if self.solver.structured:
            tensor = Decomposition(dense, kept=Kept.of(apart, columns))
        else:
            tensor = Decomposition(dense, Sparse.of(apart, apart != 0))
        missed = weight - tensor.dequantize()
        return Solved(tensor, float(np.vdot(missed.astype(np.float64), self.gradient(missed))) / 2)

    def project(self, candidate: Floats) -> tuple[Floats, NDArray[np.int32]]:
        """The largest entries of [O, I], or the columns of largest norm and which they are; zeros elsewhere."""
        if self.solver.structured:
            columns = largest_columns(candidate, round(self.solver.outliers * candidate.shape[1]))
            apart = np.zeros_like(candidate)
            apart[:, columns] = candidate[:, columns]
            return apart, columns
        mask = largest(np.abs(candidate), round(self.solver.outliers * candidate.size))
        return np.where(mask, candidate, np.float32(0)), np.zeros(0, np.int32)

    def trimmed(self) -> Floats:
        """The weight with as many extremes of each group held back, on both sides, as outliers would be there."""
        size = self.weight.size if self.scheme.granularity == "tensor" else self.scheme.group(self.weight.shape[1])
        count = 0 if self.solver.structured else round(self.solver.outliers * size / 2)
        if not count:
            return self.weight
        groups = self.weight.reshape(-1, size)
        ranked = np.partition(groups, (count, size - 1 - count), axis=1)
        clipped = np.clip(groups, ranked[:, count, None], ranked[:, size - 1 - count, None])
        return np.ascontiguousarray(clipped.reshape(self.weight.shape))

    def gradient(self, missed: Floats) -> Floats:
        """`missed` [O, I] times the Hessian."""
        moved = np.empty_like(missed)
        moved[:, self.order] = missed[:, self.order] @ self.hessian
        return moved

    def step(self) -> np.float32:
        """The step of H; the largest eigenvalue by power iteration."""
        vector = np.random.default_rng(0).standard_normal(len(self.hessian)).astype(np.float32)
        value = 0.0
        for _ in range(1000):
            vector = self.hessian @ (vector / np.float32(value or 1))
            last, value = value, float(np.linalg.norm(vector))
            if abs(value - last) <= 1e-6 * value:
                break
        return np.float32(self.solver.step / (2 * value) if value else 0.0)
