"""DMMV's solver (Ahmed et al., 2025): codes moved until the largest error of an output is as small as can be found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.errors import RecipeError, SchemeError
from subbyte.outliers import largest
from subbyte.schemes import Int
from subbyte.solvers.base import Floats, Solved, hessian, lost, missed
from subbyte.solvers.gptq import Gptq
from subbyte.solvers.nearest import Nearest
from subbyte.tensors import Decomposition, QuantizedTensor

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["MinMax"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class MinMax:
    """Minimises `max_k |x_k (w - q)|` over tokens x_k for each row w of a weight, from the codes of another solver.

    start       whose codes and grid: "nearest" or "gptq"
    iterations  neighbourhoods that are tried after the first local search
    tokens      at most so many, those of the largest norm, out of the 512 to 1023 of a sample
    moves       what a local search changes at once: "swap" a weight up and one down, "single" weights, or "both"
    active      how many of the largest errors are looked at first, and decide what is freed
    guard       no move may raise the sum of squares over all tokens, which a sample alone would not keep down
    share       of a row's weights that a neighbourhood frees; at least one
    outliers    share of the weights, the largest, that stay as they are, in 16 bits
    seed        of all draws
    """

    wanted: ClassVar[frozenset[str]] = frozenset({"gram", "sample"})

    start: Literal["nearest", "gptq"] = "gptq"
    iterations: int = 5
    tokens: int = 512
    moves: Literal["swap", "single", "both"] = "swap"
    active: int = 100
    guard: bool = True
    share: float = 0.005
    outliers: float = 0.0
    seed: int = 9101

    def __post_init__(self) -> None:
        if not 0 <= self.iterations <= 1_000_000:
            raise RecipeError(
                "min_max.iterations", self.iterations, "0 to 1000000", "5 take minutes where 100 take an hour"
            )
        if self.tokens < 1:
            raise RecipeError("min_max.tokens", self.tokens, "at least 1", "512 is the usual number")
        if self.active < 1:
            raise RecipeError("min_max.active", self.active, "at least 1", "100 is the usual number")
        if not (0 <= self.share <= 1):
            raise RecipeError("min_max.share", self.share, "0 to 1", "0.005 is the usual one")
        if not 0 <= self.outliers < 1:
            raise RecipeError("min_max.outliers", self.outliers, "0 to 1, 1 excluded", "try 0.0045")
        if not 0 <= self.seed < 1 << 31:
            raise RecipeError("min_max.seed", self.seed, "0 to 2^31 - 1")

    @property
    def sparse(self) -> bool:
        """With outliers."""
        return self.outliers > 0

    @property
    def indexed(self) -> bool:
        """Every row has one grid."""
        return False

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32 with `stats.gram` and `stats.sample`. The loss is half the squared error.

        Without a single token: to nearest, and the note says so. Raises SchemeError for groups, float zero points and
        anything but integers, SingularError, NotFiniteError.
        """
        _check(scheme)
        mask = largest(np.abs(weight), math.ceil(self.outliers * weight.size - 1e-9))
        # Zero is in every range: what is kept aside takes no part in the grid.
        rest = np.where(mask, np.float32(0), weight)
        if stats is None or stats.sample is None or stats.tokens == 0:
            plain = Nearest().solve(rest, scheme).tensor
            assert isinstance(plain, QuantizedTensor)
            kept = Decomposition.around(plain, weight, mask)
            return lost(kept, weight, "saw no calibration tokens: rounded to nearest")
        first = Nearest() if self.start == "nearest" else Gptq()
        begun = first.solve(rest, scheme, stats, name)
        assert isinstance(begun.tensor, QuantizedTensor)
        tensor = Decomposition.around(self._search(begun.tensor, weight, mask, stats), weight, mask)
        return Solved(tensor, missed(weight, tensor.dequantize(), hessian(stats, name)) / 2, begun.note)

    def _search(self, begun: QuantizedTensor, weight: Floats, mask: Mask, stats: Statistics) -> QuantizedTensor:
        """Codes that lose less at the worst, on the grid of those that were begun with."""
        x, gram = np.asarray(stats.sample), np.asarray(stats.gram)
        if len(x) > self.tokens:
            norms = np.square(x).sum(axis=1)
            x = x[np.sort(np.argsort(-norms, kind="stable")[: self.tokens])]
        every = np.tile(np.arange(1 << begun.scheme.bits, dtype=np.uint8), (len(weight), 1))
        levels = QuantizedTensor.from_codes(every, begun.scale, begun.zero, begun.scheme).dequantize()
        # A kept weight is exact whatever its code: its error is none, so its target is what the code stands for.
        target = np.where(mask, begun.dequantize(), weight)
        codes, _, _ = kernels.min_max(
            np.ascontiguousarray(x),
            np.ascontiguousarray(target @ x.T),
            levels,
            begun.codes(),
            mask.astype(np.uint8) if mask.any() else None,
            gram,
            np.ascontiguousarray(target @ gram),
            iterations=self.iterations,
            active=self.active,
            guard=self.guard,
            moves=self.moves,
            share=self.share,
            seed=self.seed,
        )
        return QuantizedTensor.from_codes(codes, begun.scale, begun.zero, begun.scheme)


def _check(scheme: Scheme) -> None:
    whole = scheme.granularity in ("channel", "tensor") and scheme.levels is None
    if not isinstance(scheme.element, Int) or not whole or scheme.float_zero or scheme.by_input:
        hint = "rows are searched each on one grid"
        raise SchemeError("scheme of the weights", scheme, "integers per channel, with whole zero points", hint)
