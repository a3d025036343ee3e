"""What every solver takes and returns, and the one way a weight is put on a grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.errors import NotFiniteError, RecipeError, SchemeError, SingularError
from subbyte.schemes import Int
from subbyte.tensors import QuantizedTensor

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme
    from subbyte.tensors import Weight

__all__ = [
    "Floats",
    "Grid",
    "Solved",
    "Solver",
    "by_column",
    "check_loop",
    "damped",
    "damped_factor",
    "hessian",
    "largest",
    "lost",
    "missed",
    "normal",
    "refuse_float_zero",
    "second_level",
]

Floats = NDArray[np.float32]
Found = TypeVar("Found")
LARGEST = 65504.0
"""Of f16: zero points of a second level stay below, whatever they are stored in."""


@dataclass(frozen=True)
class Solved:
    """A rounded weight: `loss` is half its squared error in the metric of the solver (summed over rows), `note` says
    what a reader of the log should know (a fallback, a raised damping), empty when there is nothing."""

    tensor: Weight
    loss: float
    note: str = ""


class Solver(Protocol):
    """Weight + statistics + scheme -> quantized tensor. `wanted` names the statistics that have to be gathered."""

    wanted: ClassVar[frozenset[str]]

    @property
    def indexed(self) -> bool:
        """Whether groups may be made of scattered columns, so that a group index must be stored."""
        ...

    @property
    def sparse(self) -> bool:
        """Whether a weight may be more than codes: a `Decomposition` with weights beside them, or `Rotated`."""
        ...

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I]; with its scale dtype resolved, codes are computed with the stored scales."""
        ...


class GridArguments(TypedDict):
    """The fields of `Grid` as the kernels' keyword arguments."""

    forced_zero: bool
    eps: float
    norm: float
    shrink_grid: int
    shrink_steps: int


@dataclass(frozen=True)
class Grid:
    """How the range of a group becomes scale and zero point: what `kernels.fit_affine` takes beside the scheme."""

    forced_zero: bool = True
    eps: float = 0.0
    norm: float = 2.4
    shrink_grid: int = 100
    shrink_steps: int = 0

    def fit(self, weight: Floats, scheme: Scheme) -> tuple[Floats, NDArray[np.uint8]]:
        """Scale and zero point [O, G] of a weight [O, I]; [1, 1] for one scale per tensor."""
        refuse_float_zero(scheme)
        rows = weight.reshape(1, -1) if scheme.granularity == "tensor" else weight
        scale, zero = kernels.fit_affine(
            rows,
            scheme.bits,
            group=scheme.group(rows.shape[1]),
            symmetric=scheme.symmetric,
            narrow=scheme.narrow,
            scale_dtype=scheme.scale_dtype,
            **self.kernel(),
        )
        return scale, zero

    def kernel(self) -> GridArguments:
        """The fields under the names of the kernels' arguments."""
        return {
            "forced_zero": self.forced_zero,
            "eps": self.eps,
            "norm": self.norm,
            "shrink_grid": self.shrink_grid,
            "shrink_steps": self.shrink_steps,
        }


def check_loop(solver: str, damp: float, damp_retries: int, block: int, usual: str) -> None:
    """RecipeError for damping or blocks of a column loop that no run can have; `usual` is the common damping."""
    if not (damp >= 0 and math.isfinite(damp)):
        raise RecipeError(f"{solver}.damp", damp, "a number >= 0", f"{usual} is the usual one")
    if not 0 <= damp_retries <= 10:
        raise RecipeError(f"{solver}.damp_retries", damp_retries, "0 to 10")
    if block < 1:
        raise RecipeError(f"{solver}.block", block, "at least 1", "128 is the usual one")


def hessian(stats: Statistics, name: str) -> Floats:
    """`stats.hessian` [I, I], newly allocated. Raises NotFiniteError where activations overflowed."""
    found: Floats = np.asarray(stats.hessian)
    if not np.isfinite(found.diagonal()).all():
        raise NotFiniteError(
            f"Hessian of {name}", "NaN or infinity", "finite activations", "look for overflow in the model"
        )
    return found


def missed(weight: Floats, other: Floats, moments: Floats) -> float:
    """tr((W - V) H (W - V)^T) for weights [O, I] and a symmetric H [I, I]: |X (W - V)^T|^2 where H is X^T X."""
    error = weight - other
    return float(np.vdot(error @ moments, error))


def normal(moments: Floats, ridge: float) -> Floats:
    """A Hessian with a mean diagonal of 1, and `ridge` more."""
    made: Floats = moments / np.float32(moments.diagonal().mean(dtype=np.float64))
    made[np.diag_indices_from(made)] += np.float32(ridge)
    return made


def damped(factor: Callable[[float], Found], damp: float, damp_retries: int, name: str) -> tuple[Found, str]:
    """`factor(damp)` of a Hessian, the damping raised tenfold as long as it stays singular; a note when it was raised.

    Raises SingularError when it is singular at every damping.
    """
    raised = [max(damp, 0.001) * 10**k for k in range(1, damp_retries + 1)]
    for share in (damp, *raised):
        try:
            found = factor(share)
        except SingularError:
            continue
        return found, "" if share == damp else f"singular Hessian: damping raised to {share:g}"
    raise SingularError(
        f"Hessian of {name}",
        f"singular even with {max(damp, *raised, 0):g} of its mean diagonal added",
        "a positive definite matrix",
        "use more or more varied calibration text, or raise damp or damp_retries",
    )


def damped_factor(moments: Floats, mean: float, damp: float) -> Floats:
    """Upper U with (H + damp mean I)^-1 = U^T U."""
    found: Floats = kernels.inverse_factor(moments, damp * mean)
    return found


def largest(weight: Floats, scheme: Scheme) -> Floats:
    """max|w| of each group of a weight [O, I], as the scale dtype holds it: [O, G], or [1, 1] of the whole tensor.

    1 for a group of zeros.
    """
    # what meets a narrow grid's largest code, which is 1 at 2 bits
    return Grid().fit(weight, replace(scheme, element=Int(2), narrow=True))[0]


def lost(tensor: Weight, weight: Floats, note: str = "") -> Solved:
    """A weight rounded without statistics: the loss is half its squared error."""
    difference = tensor.dequantize() - weight
    return Solved(tensor, float(np.vecdot(difference, difference).sum(dtype=np.float64)) / 2, note)


def refuse_float_zero(scheme: Scheme) -> None:
    """SchemeError for float zero points, of solvers that find whole ones."""
    if scheme.float_zero:
        raise SchemeError("scheme of the weights", scheme, "zero points that are codes", "half_quadratic finds floats")


def by_column(solver: Solver, weight: Floats, scheme: Scheme, name: str) -> Solved:
    """A weight [O, I] of a `by_input` scheme, by a solver that looks at nothing else: its transpose, solved by rows."""
    found = solver.solve(np.ascontiguousarray(weight.T), replace(scheme, by_input=False), None, name)
    assert isinstance(found.tensor, QuantizedTensor)
    return Solved(QuantizedTensor.transposed(found.tensor), found.loss, found.note)


def second_level(values: Floats, scheme: Scheme | None) -> Floats | QuantizedTensor:
    """Scales or zero points [O, G] to the nearest of the second level's `scheme`; None leaves them as they are.

    The grid of a run reaches from its least to its largest value. Values too near to each other for a zero point that
    the scale dtype can hold are all the least, to that dtype's precision.
    """
    if scheme is None:
        return values
    rows, top = np.ascontiguousarray(values.T), np.float32((1 << scheme.bits) - 1)
    runs = rows.reshape(len(rows), -1, scheme.group(rows.shape[1]))
    least, largest = runs.min(axis=2), runs.max(axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = scheme.held((largest - least) / top)
        zero = -least / scale
    near = ~(np.abs(zero) < LARGEST)
    value = scheme.held(least)
    scale = np.where(near, np.where(value == 0, np.float32(1), np.abs(value)), scale)
    zero = scheme.held(np.where(near, -np.sign(value), zero))
    codes = np.rint(np.clip(runs / scale[:, :, None] + zero[:, :, None], 0, top))
    codes[near] = 0
    return QuantizedTensor.from_codes(codes.astype(np.uint8).reshape(rows.shape), scale, zero, scheme)
