"""GWQ's solver (Shao et al., 2024): located weights stay in 16 bits, the others go to their nearest code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from subbyte.errors import RecipeError, ShapeError
from subbyte.outliers import Reduce, Score, largest
from subbyte.solvers.base import Floats, Solved, lost
from subbyte.solvers.bilevel import two_levels
from subbyte.solvers.nearest import Nearest
from subbyte.tensors import Decomposition, QuantizedTensor

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["Apart"]


@dataclass(frozen=True)
class Apart:
    """Rounds to nearest on grids that the outliers, which `outliers.gradient.locate` finds, have no part in.

    share     of the weights of a matrix that is kept in 16 bits
    samples   sequences of the calibration set that the gradient is taken on
    score     |G| or |G * W|, G the gradient of the float model's loss
    reduce    over sequences: the mean of |G|, |mean of G|, or the mean of G squared
    """

    wanted: ClassVar[frozenset[str]] = frozenset({"apart"})

    share: float = 0.01
    samples: int = 8
    score: Score = "gradient"
    reduce: Reduce = "mean_abs"

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise RecipeError("apart.share", self.share, "0 to 1", "0.01 is the usual one")
        if self.samples < 1:
            raise RecipeError("apart.samples", self.samples, "at least 1")

    @property
    def sparse(self) -> bool:
        """With any share above 0."""
        return self.share > 0

    @property
    def indexed(self) -> bool:
        """Groups are always neighbouring columns."""
        return False

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32 but for `stats.apart`, places in it. The loss is half the squared error.

        Without places, because no gradient reached the weight, the largest magnitudes are kept, and the note says so.
        Raises ShapeError (places outside the weight).
        """
        scheme.refuse_by_input("apart")
        mask, note = self._mask(weight, stats, name)
        dense: QuantizedTensor
        if scheme.float_zero:
            dense, *_ = two_levels(weight, None, scheme, mask=mask)
        else:
            # Zero is in every range and has a code of its own: what is zeroed takes no part, and decodes to 0.
            found = Nearest().solve(np.where(mask, np.float32(0), weight), scheme).tensor
            assert isinstance(found, QuantizedTensor)
            dense = found
        return lost(Decomposition.around(dense, weight, mask), weight, note)

    def _mask(self, weight: Floats, stats: Statistics | None, name: str) -> tuple[NDArray[np.bool_], str]:
        count = math.ceil(self.share * weight.size - 1e-9)
        if stats is None or stats.apart is None or not len(stats.apart):
            note = "no gradient reached it: kept its largest weights" if count else ""
            return largest(np.abs(weight), count), note
        places = np.asarray(stats.apart)
        if len(places) != count or int(places.min()) < 0 or int(places.max()) >= weight.size:
            raise ShapeError(f"places apart in {name}", f"{len(places)}", f"{count} inside {list(weight.shape)}")
        mask = np.zeros(weight.size, np.bool_)
        mask[places] = True
        return mask.reshape(weight.shape), ""
