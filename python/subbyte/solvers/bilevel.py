"""SpQR's solver (Dettmers et al., 2023): error feedback on two-level grids, and outliers that it keeps apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.errors import RecipeError, SchemeError
from subbyte.solvers.base import Floats, Solved, check_loop, damped, hessian
from subbyte.tensors import Decomposition, QuantizedTensor, Sparse

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["Bilevel", "two_levels"]


@dataclass(frozen=True)
class Bilevel:
    """GPTQ's column loop on grids with float zero points, quantized themselves where the scheme has levels.

    outliers      a weight is kept in 16 bits where its squared error, over the squared diagonal of the inverse
                  Hessian's factor, is above this many times the mean over the columns of their variance over the same.
                  The larger, the fewer; None: none is
    simplified    fit each grid to all weights of its group; else without those that the others are better off without
    order         of the columns: as they are ("identity"), by falling Hessian diagonal ("act_order"), or each followed
                  by that of the rest whose ranks resemble its own the most ("spearman")
    damp          share of the mean of the diagonal that is added to it
    damp_retries  how often a Hessian that stays singular is tried again with ten times the damping
    round_zero    zero points are whole numbers before they are quantized
    block         columns between two updates of the rest of the matrix: speed only
    """

    wanted: ClassVar[frozenset[str]] = frozenset({"gram"})

    outliers: float | None = 0.2
    simplified: bool = False
    order: Literal["identity", "act_order", "spearman"] = "act_order"
    damp: float = 1.0
    damp_retries: int = 3
    round_zero: bool = False
    block: int = 128

    def __post_init__(self) -> None:
        if self.outliers is not None and not (self.outliers >= 0 and math.isfinite(self.outliers)):
            raise RecipeError("bilevel.outliers", self.outliers, "a number >= 0, or none", "0.2 is the usual one")
        check_loop("bilevel", self.damp, self.damp_retries, self.block, "1")

    @property
    def sparse(self) -> bool:
        """With outliers."""
        return self.outliers is not None

    @property
    def indexed(self) -> bool:
        """Groups are made of columns that the order brought together."""
        return self.order != "identity"

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32 with `stats.gram` [I, I].

        Without a single token there is no Hessian: rounds to nearest on the same kind of grid, keeps nothing apart, and
        says so. Raises SchemeError (no float zero points, or one scale a tensor), SingularError, NotFiniteError.
        """
        scheme.refuse_by_input("bilevel")
        if not scheme.float_zero or scheme.granularity == "tensor":
            hint = "write int4/g16/asym/float_zero, with /s3z3r16 for the second level"
            raise SchemeError(f"scheme of {name}", scheme, "float zero points for each channel or group", hint)
        if stats is None or stats.tokens == 0:
            dense, *_, loss = two_levels(weight, None, scheme, round_zero=self.round_zero)
            return Solved(dense, loss, "saw no calibration tokens: rounded to nearest")
        moments = hessian(stats, name)
        diagonal = moments.diagonal().copy()
        order = self._order(weight, diagonal)
        weight = np.where(diagonal == 0, np.float32(0), weight)[:, order]
        factor, note = self._factor(moments[np.ix_(order, order)], diagonal[order], name)
        threshold = None
        if self.outliers is not None and len(weight) > 1:
            spread = weight.var(axis=0, ddof=1, dtype=np.float64) / np.square(factor.diagonal(), dtype=np.float64)
            threshold = self.outliers * float(spread.mean())
        dense, mask, compensated, loss = two_levels(
            np.ascontiguousarray(weight), factor, scheme, order, threshold, self.simplified, self.round_zero, self.block
        )
        if self.outliers is None:
            return Solved(dense, loss, note)
        # Decoded, the code at an outlier is near 0 but not 0: the entry makes up for it.
        sparse = Sparse.of(compensated - dense.dequantize(), mask)
        return Solved(Decomposition(dense, sparse), loss, note)

    def _order(self, weight: Floats, diagonal: Floats) -> NDArray[np.intp]:
        if self.order == "identity":
            return np.arange(len(diagonal))
        first = np.argsort(-diagonal, kind="stable")
        return _chain(weight, int(first[0])) if self.order == "spearman" and len(first) else first

    def _factor(self, moments: Floats, diagonal: Floats, name: str) -> tuple[Floats, str]:
        """The factor of the damped inverse; dead columns have a diagonal of 1, whatever the damping."""
        mean = float(np.abs(diagonal).mean(dtype=np.float64))
        places = np.arange(len(diagonal))

        def factor(damp: float) -> Floats:
            moments[places, places] = np.where(diagonal == 0, np.float32(1), diagonal + np.float32(damp * mean))
            found: Floats = kernels.inverse_factor(moments, 0.0)
            return found

        return damped(factor, self.damp, self.damp_retries, name)


def two_levels(
    weight: Floats,
    factor: Floats | None,
    scheme: Scheme,
    order: NDArray[np.intp] | None = None,
    threshold: float | None = None,
    simplified: bool = False,
    round_zero: bool = False,
    block: int = 128,
    mask: NDArray[np.bool_] | None = None,
) -> tuple[QuantizedTensor, NDArray[np.bool_], Floats, float]:
    """`kernels.bilevel` on a weight [O, I] whose columns stand in `order`, as a tensor of `scheme`.

    order     [I]: the original column at each place; None: as they are
    returns   the tensor, what is kept apart [O, I], the compensated weight [O, I], all in the original order; the loss
    """
    group, levels = scheme.group(weight.shape[1]), scheme.levels
    codes, scale, zero, scale_codes, zero_codes, scale_grid, zero_grid, found, compensated, loss = kernels.bilevel(
        weight,
        factor,
        scheme.bits,
        group,
        threshold=threshold,
        simplified=simplified,
        scale_bits=0 if levels is None else levels.scale or 0,
        zero_bits=0 if levels is None else levels.zero or 0,
        run=1 if levels is None else levels.run,
        round_zero=round_zero,
        scale_dtype="f32" if scheme.scale_dtype == "auto" else scheme.scale_dtype,
        block=block,
        mask=None if mask is None else mask.astype(np.uint8),
    )
    place = np.arange(weight.shape[1]) if order is None else np.argsort(order)
    dense = QuantizedTensor.from_codes(
        np.ascontiguousarray(codes[:, place]),
        _level(scale, scale_codes, scale_grid, scheme.level("scale")),
        _level(zero, zero_codes, zero_grid, scheme.level("zero")),
        scheme,
        (place // group).astype(np.int32) if scheme.granularity == "group" else None,
    )
    return dense, found[:, place] != 0, compensated[:, place], float(loss.sum(dtype=np.float64))


def _level(values: Floats, codes: NDArray[np.uint8], grid: Floats, scheme: Scheme | None) -> Floats | QuantizedTensor:
    """Scales or zero points as floats, or as a tensor with groups for rows."""
    if scheme is None:
        return values
    scale, zero = (np.ascontiguousarray(grid[:, :, part].T) for part in (0, 1))
    return QuantizedTensor.from_codes(np.ascontiguousarray(codes.T), scale, zero, scheme)


def _chain(weight: Floats, first: int) -> NDArray[np.intp]:
    """Columns from `first` on, each followed by that of the rest with the largest rank correlation to it (Spearman)."""
    ranks = np.argsort(np.argsort(weight, axis=0, kind="stable"), axis=0).astype(np.float32)
    ranks -= ranks.mean(axis=0)
    ranks /= np.maximum(np.linalg.norm(ranks, axis=0), np.float32(1e-30))
    free = np.ones(weight.shape[1], np.bool_)
    order = [first]
    while len(order) < len(free):
        free[order[-1]] = False
        likeness = ranks[:, order[-1]] @ ranks
        order.append(int(np.argmax(np.where(free, likeness, -np.inf))))
    return np.array(order)
