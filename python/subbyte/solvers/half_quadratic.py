"""HQQ's solver (Badri and Shaji, 2023): steps from the range, float zero points from the weight's own l_p error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.errors import RecipeError, SchemeError
from subbyte.solvers.base import Floats, Solved, by_column, lost, second_level
from subbyte.tensors import QuantizedTensor

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["HalfQuadratic"]

Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class HalfQuadratic:
    """Minimises `sum |w - scale (code - zero)| ** p` over float zero points, split by an error term that is shrunk.

    p            exponent of the error, above 0, at most 1
    beta, kappa  weight of the quadratic term in the first pass, and by what it grows with each
    steps        passes at most; 0: round to nearest with float zero points
    stop         stop at the first pass that does not lower the mean error of the whole weight
    best         keep the zero points of the pass with the least error, not those after the last
    round_zero   start from whole zero points
    normalize    measure errors in units of the weight's mean magnitude, so that a scaled weight gives the same codes;
                 otherwise `beta` is so large for weights as they are that nothing is left of the shrunk error
    """

    wanted: ClassVar[frozenset[str]] = frozenset()
    sparse = False

    p: float = 0.7
    beta: float = 10.0
    kappa: float = 1.01
    steps: int = 20
    stop: bool = True
    best: bool = False
    round_zero: bool = False
    normalize: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise RecipeError("half_quadratic.p", self.p, "above 0, at most 1", "0.7 is the usual one")
        if not (self.beta > 0 and math.isfinite(self.beta)):
            raise RecipeError("half_quadratic.beta", self.beta, "a number > 0", "10 is the usual one")
        if not (self.kappa >= 1 and math.isfinite(self.kappa)):
            raise RecipeError("half_quadratic.kappa", self.kappa, "a number >= 1", "1.01 is the usual one")
        if not 0 <= self.steps <= 1000:
            raise RecipeError("half_quadratic.steps", self.steps, "0 to 1000", "20 is the usual number")

    @property
    def indexed(self) -> bool:
        """Groups are always neighbouring columns."""
        return False

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32; `stats` is not looked at. The loss is half the squared error of the weight.

        With levels, scales and zero points found go to their second level, and codes are nearest on what it holds.
        Raises SchemeError for a scheme without float zero points.
        """
        if not scheme.float_zero:
            hint = "write asym/float_zero, as in int4/g64/asym/float_zero"
            raise SchemeError(f"scheme of {name}", scheme, "float zero points, which is what this solver finds", hint)
        if scheme.by_input:
            return by_column(self, weight, scheme, name)
        rows = weight.reshape(1, -1) if scheme.granularity == "tensor" else weight
        beta = self.beta
        mean = float(np.abs(weight).mean(dtype=np.float64)) if weight.size else 0.0
        if self.normalize and mean > 0:
            # shrink(e / mean) mean = sign(e) max(|e| - |e| ** (p - 1) mean ** (2 - p) / beta, 0)
            beta = beta / mean ** (2 - self.p)
        codes, scale, zero, _ = kernels.half_quadratic(
            rows,
            scheme.bits,
            group=scheme.group(rows.shape[1]),
            p=self.p,
            beta=beta,
            kappa=self.kappa,
            steps=self.steps,
            stop=self.stop,
            best=self.best,
            round_zero=self.round_zero,
            scale_dtype="f32" if scheme.scale_dtype == "auto" else scheme.scale_dtype,
        )
        if scheme.levels is not None:
            scale, zero = second_level(scale, scheme.level("scale")), second_level(zero, scheme.level("zero"))
            codes = _codes(weight, scale, zero, scheme)
        tensor = QuantizedTensor.from_codes(codes.reshape(weight.shape), scale, zero, scheme)
        return lost(tensor, weight)


def _codes(weight: Floats, scale: Floats | QuantizedTensor, zero: Floats | QuantizedTensor, scheme: Scheme) -> Codes:
    """The nearest codes on grids that are quantized themselves, as they will be decoded."""
    steps, zeros = (v.dequantize().T if isinstance(v, QuantizedTensor) else v for v in (scale, zero))
    groups = weight.reshape(len(weight), -1, scheme.group(weight.shape[1]))
    codes: Floats = np.rint(np.clip(groups / steps[:, :, None] + zeros[:, :, None], 0, (1 << scheme.bits) - 1))
    return codes.astype(np.uint8).reshape(weight.shape)
