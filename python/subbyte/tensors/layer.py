"""QuantizedLayer: a quantized weight and how the inputs that meet it are quantized."""

from __future__ import annotations

import math
from dataclasses import dataclass

from subbyte.errors import NotFiniteError, SchemeError
from subbyte.schemes import Int, Scheme
from subbyte.tensors.codebook import CodebookTensor
from subbyte.tensors.decomposition import Decomposition
from subbyte.tensors.quantized import QuantizedTensor
from subbyte.tensors.rotated import Rotated
from subbyte.tensors.table import TableTensor
from subbyte.tensors.vectors import VectorTensor

__all__ = ["QuantizedLayer", "Weight"]

Weight = QuantizedTensor | CodebookTensor | TableTensor | VectorTensor | Decomposition | Rotated
"""What a solver finds and a layer runs on: a new kind of tensor joins here."""


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """One linear layer, without its bias.

    weight        [O, I] as codes, alone, with what is kept beside them, or between rotations
    activation    None: inputs stay float. Otherwise their scheme: a granularity of token or tensor, the scale found
                  while running, or fixed (`static`) and then given as
    input_scale   the scale of the inputs, with an activation scheme that is static and only then

    Raises SchemeError for a combination that cannot run, NotFiniteError for an input scale that is no positive number.
    """

    weight: Weight
    activation: Scheme | None = None
    input_scale: float | None = None

    def __post_init__(self) -> None:
        activation, scale = self.activation, self.input_scale
        if activation is not None and activation.granularity not in ("token", "tensor"):
            raise SchemeError("activation", activation, "granularity token or tensor", "for example int8/token")
        if activation is not None and not isinstance(activation.element, Int):
            raise SchemeError("activation", activation, "integers", "for example int8/token")
        static = activation is not None and activation.static
        if static != (scale is not None):
            given = f"activation {activation} with input_scale {scale}"
            raise SchemeError("input_scale", given, "a number exactly where the activation scheme is static")
        if activation is not None and activation.static and not activation.symmetric:
            raise SchemeError("activation", activation, "a symmetric scheme", "a static zero point is not kept")
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise NotFiniteError("input_scale", scale, "a positive number", "check the calibration text")

    @property
    def nbytes(self) -> int:
        """Bytes that are stored: those of the weight, and four for a static input scale."""
        return self.weight.nbytes + (4 if self.input_scale is not None else 0)
