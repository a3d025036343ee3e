"""QuIP's and QuIP#'s solver (Chee et al., 2023; Tseng et al., 2024): rounding with linear feedback between
rotations."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.errors import RecipeError, SchemeError
from subbyte.schemes import E8p
from subbyte.solvers.base import Floats, Grid, Solved, check_loop, damped, hessian, missed, normal
from subbyte.solvers.feedback import bounded, dithered
from subbyte.solvers.vectors import fit_vectors
from subbyte.tensors import CodebookTensor, QuantizedTensor, Rotated, Rotation, halves, rotate

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["Ldlq"]

LEAST = 1e-8
"""What diagonals and factors of the rescaling count as at least."""


@dataclass(frozen=True)
class Ldlq:
    """Minimises tr((W - Q) H (W - Q)^T) from the last columns to the first, rotated so that no entry is large.

    incoherence   "kronecker" or "block": random rotations, drawn by a seed; "hadamard": random signs and a Hadamard
                  matrix; "none"
    rescale       before the rotations, balance the columns of W against the diagonal of H
    level         before the rotations, give all rows of W one size: the error is then spread in its proportion over
                  the rows, where it is otherwise the same in each, however small its weights are
    rounding      "ldlq"; "ldlqRG": the same with the columns in the order of rising diagonal; "allbal": no feedback,
                  the passes alone, from the weight itself in that order; "stochastic": up or down at random, so that
                  the mean is the weight; "ldlbal_admm": feedback that no column amplifies much; "nearest": no Hessian
    passes        of coordinate descent after the first one (all that "allbal" does; not after the last three)
    refits        how often the vectors beside the rotations are fitted to the codes, which are found anew in between
    spread        codes reach from -spread to spread root mean squares of the weight; for E8P the weight is divided by
                  spread root mean squares. Rows keep their own range where the scheme has a scale for each
    ridge, damp   shares of the mean diagonal that are added to the diagonal before and after the rotation
    damp_retries  how often a Hessian that stays singular is tried again with ten times the damping
    seed          of all draws, together with the name of the layer
    block         columns between two updates of the rest of the matrix: speed only
    """

    wanted: ClassVar[frozenset[str]] = frozenset({"gram"})
    indexed = False

    incoherence: Literal["kronecker", "block", "hadamard", "none"] = "kronecker"
    rescale: bool = True
    level: bool = False
    rounding: Literal["ldlq", "ldlqRG", "allbal", "stochastic", "ldlbal_admm", "nearest"] = "ldlq"
    passes: int = 0
    refits: int = 0
    spread: float = 2.4
    ridge: float = 0.01
    damp: float = 0.01
    damp_retries: int = 3
    seed: int = 0
    block: int = 128

    def __post_init__(self) -> None:
        check_loop("ldlq", self.damp, self.damp_retries, self.block, "0.01")
        if not (self.ridge >= 0 and math.isfinite(self.ridge)):
            raise RecipeError("ldlq.ridge", self.ridge, "a number >= 0", "0.01 is the usual one")
        if not (self.spread > 0 and math.isfinite(self.spread)):
            raise RecipeError("ldlq.spread", self.spread, "a number > 0", "2.4 is the usual one")
        if not 0 <= self.passes <= 1000:
            raise RecipeError("ldlq.passes", self.passes, "0 to 1000")
        if self.rounding == "allbal" and self.passes == 0:
            raise RecipeError("ldlq.passes", 0, "1 or more with allbal, which does nothing else", "10 is the usual one")
        if self.rounding in ("stochastic", "ldlbal_admm", "nearest") and self.passes:
            hint = "ldlq and ldlqRG take some, allbal needs them"
            raise RecipeError("ldlq.passes", self.passes, f"0 with {self.rounding}", hint)
        if self.level and self.incoherence == "none":
            raise RecipeError("ldlq.level", True, "false without rotations", "rows have ranges of their own there")
        if not 0 <= self.refits <= 100 or (self.refits and self.incoherence == "none"):
            raise RecipeError("ldlq.refits", self.refits, "0 to 100, 0 without rotations", "1 or 2 do most")
        if not 0 <= self.seed < 1 << 31:
            raise RecipeError("ldlq.seed", self.seed, "0 to 2^31 - 1")

    @property
    def sparse(self) -> bool:
        """With rotations."""
        return self.incoherence != "none"

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32 with `stats.gram` [I, I]. The loss is measured after scaling and damping.

        Without a single token: to the nearest codes, and the note says so. Raises SchemeError (a scheme other than
        e8p/tensor or integers per tensor with float zero points between rotations, integers per row without; E8P with
        an order of columns or I no multiple of 8), RangeError (a size that `Rotation` does not take), SingularError,
        NotFiniteError.
        """
        self._check(scheme, weight.shape[1])
        note = "" if stats is not None and stats.tokens else "saw no calibration tokens: rounded to nearest"
        moments = None if note or stats is None else hessian(stats, name)
        if moments is not None and not moments.diagonal().any():
            moments, note = None, "saw inputs of zeros alone: rounded to nearest"
        if self.incoherence == "none":
            dense, loss, raised = self._round(weight, _normal(moments, self.ridge), scheme, name)
            return Solved(dense, loss, note or raised)
        inputs, outputs = self._rotations(weight, moments, name)
        found = best = self._between(weight, moments, inputs, outputs, scheme, name)
        if moments is None:
            return replace(best, note=note)
        for k in range(self.refits):
            assert isinstance(found.tensor, Rotated)
            fitted = fit_vectors(weight, found.tensor, moments)
            loss = missed(weight, fitted.dequantize(), moments) / 2
            best = replace(found, tensor=fitted, loss=loss) if k == 0 or loss < best.loss else best
            if k + 1 < self.refits:
                found = self._between(weight, moments, fitted.inputs, fitted.outputs, scheme, name)
        return best

    def _between(
        self, weight: Floats, moments: Floats | None, inputs: Rotation, outputs: Rotation, scheme: Scheme, name: str
    ) -> Solved:
        """Rounds the weight between two rotations."""
        vector = inputs.scales()
        moments = _normal(None if moments is None else moments * vector * vector[:, None], self.ridge)
        if moments is not None:
            moments = inputs.forward(np.ascontiguousarray(inputs.forward(moments).T))
        dense, loss, raised = self._round(rotate(weight, inputs, outputs), moments, scheme, name)
        return Solved(Rotated(dense, inputs, outputs), loss, raised)

    def _check(self, scheme: Scheme, columns: int) -> None:
        if isinstance(scheme.element, E8p):
            if self.rounding not in ("ldlq", "nearest"):
                hint = "take ldlq with passes"
                raise SchemeError(f"scheme of {self.rounding}", scheme, "integers, rounded one by one", hint)
            if columns % 8:
                raise SchemeError("scheme of the weights", scheme, f"integers for {columns} columns, no multiple of 8")
            return
        rows = self.incoherence == "none" and scheme.granularity == "channel" and not scheme.float_zero
        whole = scheme.granularity == "tensor" and scheme.float_zero
        if (rows or whole) and scheme.levels is None and not scheme.by_input:
            return
        wanted = "e8p2/tensor, or int2/tensor/asym/float_zero" + ("" if self.sparse else ", or int2/channel/asym")
        raise SchemeError("scheme of the weights", scheme, wanted, "the bits may be others")

    def _rotations(self, weight: Floats, moments: Floats | None, name: str) -> tuple[Rotation, Rotation]:
        """The two sides, with 1 / s and the signs as vectors."""
        drawn = self._draws(name)
        rows, columns = weight.shape
        inputs, outputs = np.ones(columns), np.ones(rows)
        if self.rescale and moments is not None:
            inputs /= _balance(weight, moments)
        if self.level:
            outputs *= _sizes(weight)
        assert self.incoherence != "none"
        kind, seeds = self.incoherence, [0, 0]
        if kind == "hadamard":
            inputs *= _signs(drawn, columns)
            outputs *= _signs(drawn, rows)
        else:
            seeds = (drawn.random_raw(2) >> np.uint64(1)).tolist()
        # A seed tells a rotation in a file, where Hadamard's vectors do.
        vectors = [None if kind != "hadamard" and (v == 1).all() else halves(v) for v in (inputs, outputs)]
        return Rotation(kind, columns, seeds[0], vectors[0]), Rotation(kind, rows, seeds[1], vectors[1])

    def _round(
        self, weight: Floats, moments: Floats | None, scheme: Scheme, name: str
    ) -> tuple[QuantizedTensor | CodebookTensor, float, str]:
        """Codes in the units of the codewords, the loss, and a note where the damping was raised."""
        size = float(np.sqrt(np.square(weight, dtype=np.float64).mean())) or 1.0
        if isinstance(scheme.element, E8p):
            scale = np.full((1, 1), size * self.spread, np.float32)
            codes, loss, note = self._kernel(weight / scale, moments, scheme, name)
            return CodebookTensor.from_codes(codes, scale, scheme), loss * float(scale[0, 0]) ** 2, note
        top = (1 << scheme.bits) - 1
        zero: NDArray[np.float32] | NDArray[np.uint8]
        if scheme.granularity == "channel":
            scale, zero = Grid().fit(weight, scheme)
        else:
            scale = np.full((1, 1), 2 * self.spread * size / top, np.float32)
            zero = np.full((1, 1), top / 2, np.float32)
        steps = np.clip(weight / scale + zero, 0, top, dtype=np.float32)
        codes, loss, note = self._kernel(steps, moments, scheme, name)
        given = None if scheme.symmetric else zero
        tensor = QuantizedTensor.from_codes(codes.astype(np.uint8), scale, given, scheme)
        return tensor, loss * float(np.square(scale).mean()), note

    def _kernel(
        self, steps: Floats, moments: Floats | None, scheme: Scheme, name: str
    ) -> tuple[NDArray[np.int32], float, str]:
        codewords = "e8p" if isinstance(scheme.element, E8p) else "integers"
        if moments is None or self.rounding == "nearest":
            codes, _, loss = kernels.ldlq(steps, None, scheme.bits, codewords)
            return codes, float(loss.sum(dtype=np.float64)), ""
        mean = float(moments.diagonal().mean(dtype=np.float64))
        order = np.arange(steps.shape[1])
        if self.rounding in ("ldlqRG", "allbal"):
            order = np.argsort(moments.diagonal(), kind="stable")
            steps, moments = np.ascontiguousarray(steps[:, order]), np.ascontiguousarray(moments[np.ix_(order, order)])
        start = steps if self.rounding == "allbal" else None
        plain = moments

        def run(damp: float) -> tuple[NDArray[np.int32], float]:
            metric = plain + np.float32(damp * mean) * np.eye(len(plain), dtype=np.float32)
            given, fed = steps, metric
            if self.rounding == "stochastic":
                words = self._draws(name).jumped().random_raw(steps.size).reshape(steps.shape)
                given = dithered(steps, (words >> np.uint64(11)) * 2.0**-53, metric)
            elif self.rounding == "ldlbal_admm":
                fed = bounded(metric)
            codes, values, loss = kernels.ldlq(given, fed, scheme.bits, codewords, self.passes, start, self.block)
            own = given is steps and fed is metric  # else the kernel's loss is that of what it was given
            return codes, float(loss.sum(dtype=np.float64)) if own else missed(steps, values, metric) / 2

        (codes, total), note = damped(run, self.damp, self.damp_retries, name)
        back = np.argsort(order) if codewords == "integers" else slice(None)
        return np.ascontiguousarray(codes[:, back]), total, note

    def _draws(self, name: str) -> np.random.Philox:
        return np.random.Philox(key=zlib.crc32(name.encode()) << 31 | self.seed)


def _normal(moments: Floats | None, ridge: float) -> Floats | None:
    return None if moments is None else normal(moments, ridge)


def _balance(weight: Floats, moments: Floats) -> NDArray[np.float64]:
    """S_j = (H_jj / |W_j|^2)^(1/4), of a Hessian whose largest entry is 1."""
    diagonal = moments.diagonal().astype(np.float64) / float(np.abs(moments).max())
    squares = np.square(weight, dtype=np.float64).sum(axis=0)
    found: NDArray[np.float64] = (np.maximum(diagonal, LEAST) / np.maximum(squares, LEAST)) ** 0.25
    return np.maximum(found, LEAST)


def _sizes(weight: Floats) -> NDArray[np.float64]:
    """Root mean squares of the rows, their geometric mean 1; 1 for rows of zeros."""
    sizes: NDArray[np.float64] = np.sqrt(np.square(weight, dtype=np.float64).mean(axis=1))
    found = sizes > 0
    sizes[~found] = 1
    if found.any():
        sizes[found] /= np.exp(np.log(sizes[found]).mean())
    return sizes


def _signs(drawn: np.random.Philox, count: int) -> NDArray[np.float64]:
    return np.where(drawn.random_raw(count) >> np.uint64(63), 1.0, -1.0)
