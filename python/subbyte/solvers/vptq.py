"""VPTQ's solver (Liu et al., 2024): vectors along the outputs become codewords, by columns, with error feedback."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.errors import RecipeError, SchemeError
from subbyte.schemes import Vectors
from subbyte.solvers.base import Floats, Solved, check_loop, damped, damped_factor, hessian, missed, normal
from subbyte.solvers.revise import revise
from subbyte.solvers.tune import fit, tune
from subbyte.tensors import Coded, VectorTensor

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["Vptq"]


@dataclass(frozen=True)
class Vptq:
    """Minimises tr((W - Q) H (W - Q)^T) column after column, Q out of codebooks that k-means finds.

    permute       columns in the order of falling Hessian diagonal, which brings outliers first
    norm_hessian  with normalised columns W' = (W - b) / s: "scaled": all is weighed by H' = diag(s) H diag(s), as the
                  errors of W' deserve; "unscaled": by H, as released
    weighted      k-means weighs each vector by its column's Hessian diagonal
    iterations, tolerance, init  of k-means, as in `kernels.kmeans`
    passes        of coordinate descent over the codes after the first ones, with the codebooks as they are
    loose         share of each of its diagonal's entries that is added to the Hessian in these passes: inputs that the
                  calibration text shows together may come apart
    refits        how often codebooks are fitted to the codes by least squares, the passes before each of them
    tune, rate    steps of Adam by which the codebooks, scales and biases learn from the layer's inputs, and their size
    ridge, damp   shares of the mean diagonal that are added to the diagonal, at once and before the factor is taken
    damp_retries  how often a Hessian that stays singular is tried again with ten times the damping
    seed          of k-means
    block         columns between two updates of the rest of the matrix: speed only
    """

    wanted: ClassVar[frozenset[str]] = frozenset({"gram"})
    indexed = False
    sparse = False

    permute: bool = True
    norm_hessian: Literal["scaled", "unscaled"] = "scaled"
    weighted: bool = True
    iterations: int = 100
    tolerance: float = 1e-5
    init: Literal["plusplus", "random"] = "plusplus"
    passes: int = 0
    refits: int = 0
    loose: float = 0.0
    tune: int = 100
    rate: float = 1e-4
    ridge: float = 0.01
    damp: float = 0.01
    damp_retries: int = 3
    seed: int = 0
    block: int = 128

    def __post_init__(self) -> None:
        check_loop("vptq", self.damp, self.damp_retries, self.block, "0.01")
        numbers = {"ridge": self.ridge, "tolerance": self.tolerance, "rate": self.rate, "loose": self.loose}
        for name, value in numbers.items():
            if not (value >= 0 and math.isfinite(value)):
                raise RecipeError(f"vptq.{name}", value, "a number >= 0")
        if not 0 <= self.iterations <= 10000:
            raise RecipeError("vptq.iterations", self.iterations, "0 to 10000", "100 is the usual one")
        if not 0 <= self.tune <= 100000:
            raise RecipeError("vptq.tune", self.tune, "0 to 100000", "100 is the usual one")
        if not 0 <= self.passes <= 1000:
            raise RecipeError("vptq.passes", self.passes, "0 to 1000", "2 do most")
        if not 0 <= self.refits <= 100:
            raise RecipeError("vptq.refits", self.refits, "0 to 100", "3 do most")
        if not 0 <= self.seed < 1 << 31:
            raise RecipeError("vptq.seed", self.seed, "0 to 2^31 - 1")

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32 with `stats.gram` [I, I]; the loss is half the squared error of a token's outputs.

        Without a single token all inputs count alike, and the note says so. Raises SchemeError (no vectors), ShapeError
        (fewer columns than groups), SingularError, NotFiniteError.
        """
        element = scheme.element
        if not isinstance(element, Vectors):
            raise SchemeError("scheme of the weights", scheme, "vectors, such as v6k4096/tensor")
        note = "" if stats is not None and stats.tokens else "saw no calibration tokens: all inputs count alike"
        moments: Floats = np.eye(weight.shape[1], dtype=np.float32)
        if stats is not None and not note:
            seen = hessian(stats, name) * np.float32(0.5)
            moments, note = (
                (seen, "") if seen.diagonal().any() else (moments, "saw inputs of zeros alone: all count alike")
            )
        scale, bias = _range(weight, scheme) if element.norm else (None, None)
        plain, metric = weight, moments
        if scale is not None and bias is not None:
            plain = (weight - bias) / scale
            metric = moments * scale * scale[:, None] if self.norm_hessian == "scaled" else moments
        metric = normal(metric, self.ridge)
        order = np.argsort(-metric.diagonal(), kind="stable") if self.permute else np.arange(len(metric))
        plain, metric = np.ascontiguousarray(plain[:, order]), np.ascontiguousarray(metric[np.ix_(order, order)])
        mean = float(metric.diagonal().mean(dtype=np.float64))
        factor, raised = damped(partial(damped_factor, metric, mean), self.damp, self.damp_retries, name)
        outliers, left = self._outliers(plain, metric.diagonal(), factor, scheme, element)
        codes, books = self._main(left, plain, metric.diagonal(), factor, scheme, element)
        absorbed = outliers is None and element.groups == 1
        if absorbed:  # every code belongs to one column: the codes themselves go back to its place
            codes = codes[:, np.argsort(order)]
        place = None if absorbed or not self.permute else order.astype(np.int32)
        tensor = VectorTensor(scheme, weight.shape, Coded.of(codes, *books), outliers, place, scale, bias)
        if self.passes or self.refits:
            tensor = self._revised(tensor, weight, moments)
        if self.tune:
            tensor = tune(tensor, weight, moments, self.tune, self.rate)
        return Solved(tensor, missed(weight, tensor.dequantize(), moments) / 2, note or raised)

    def _revised(self, tensor: VectorTensor, weight: Floats, moments: Floats) -> VectorTensor:
        """Codes found anew and codebooks fitted to them, by turns."""
        loose = moments + np.diag(np.float32(self.loose) * moments.diagonal()) if self.passes else moments
        for _ in range(max(self.refits, 1)):
            if self.passes:
                tensor = revise(tensor, weight, loose, self.passes, self.block)
            if self.refits:
                tensor = fit(tensor, weight, moments)
        return tensor

    def _outliers(
        self, plain: Floats, importance: Floats, factor: Floats, scheme: Scheme, element: Vectors
    ) -> tuple[Coded | Floats | None, Floats]:
        """The first columns, in codes of their own or as floats, and the others with the errors of these."""
        rows, cols = plain.shape
        apart, _ = element.columns(cols)
        first = np.ascontiguousarray(plain[:, :apart])
        if not apart:
            return None, plain
        found: Coded | Floats = scheme.held(first)
        if element.outlier_count:
            book = self._codebook(first, importance[:apart], element.outlier_dim, element.outlier_count, scheme)[None]
            own = np.ascontiguousarray(factor[:apart, :apart])
            codes, first, _ = kernels.gptq_codebook(first, own, book, block=self.block)
            found = Coded.of(codes, book)
        values = found.values(rows, apart) if isinstance(found, Coded) else found
        errors = (first - values) / factor.diagonal()[:apart]
        return found, np.ascontiguousarray(plain[:, apart:] - errors @ factor[:apart, apart:])

    def _main(
        self, left: Floats, plain: Floats, importance: Floats, factor: Floats, scheme: Scheme, element: Vectors
    ) -> tuple[NDArray[np.int32], list[Floats]]:
        """Codes of the columns that are no outliers, and the codebooks of one stage or two."""
        apart, size = element.columns(plain.shape[1])
        own = np.ascontiguousarray(factor[apart:, apart:])

        def codebooks(columns: Floats, count: int) -> Floats:
            groups = [slice(start, start + size) for start in range(0, columns.shape[1], size)]
            weighed = [(columns[:, group], importance[apart:][group]) for group in groups]
            return np.stack([self._codebook(one, weigh, element.dim, count, scheme) for one, weigh in weighed])

        first = codebooks(plain[:, apart:], element.count)
        codes, compensated, _ = kernels.gptq_codebook(left, own, first, block=self.block)
        if not element.residual:
            return codes, [first]
        second = codebooks(compensated - Coded.of(codes, first).values(*left.shape), element.residual)
        codes, _, _ = kernels.gptq_codebook(left, own, first, second, self.block)
        return codes, [first, second]

    def _codebook(self, columns: Floats, importance: Floats, dim: int, count: int, scheme: Scheme) -> Floats:
        """Codewords [count, dim] for the vectors of some columns [O, C], zeros where there are fewer vectors."""
        padded = np.pad(columns, ((0, -len(columns) % dim), (0, 0)))
        vectors = np.ascontiguousarray(padded.reshape(-1, dim, columns.shape[1]).transpose(0, 2, 1)).reshape(-1, dim)
        weights = np.tile(importance, len(padded) // dim) if self.weighted else None
        found, _, _ = kernels.kmeans(
            vectors,
            min(count, len(vectors)),
            weights,
            init=self.init,
            seed=self.seed,
            iterations=self.iterations,
            tolerance=self.tolerance,
        )
        book = np.zeros((count, dim), np.float32)
        book[: len(found)] = found
        return scheme.held(book)


def _range(weight: Floats, scheme: Scheme) -> tuple[Floats, Floats]:
    """Scale and bias that put each column between 0 and 1, as the scale dtype holds them."""
    least, largest = weight.min(axis=0), weight.max(axis=0)
    bias = scheme.held(least[None])[0]
    scale = scheme.held((largest - least)[None])[0]
    return np.where(scale > 0, scale, np.float32(1)), bias
