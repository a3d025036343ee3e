"""Rotated: a weight whose codes lie between two rotations that stay at run time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from subbyte.errors import ShapeError
from subbyte.schemes import Scheme
from subbyte.tensors.codebook import CodebookTensor
from subbyte.tensors.quantized import QuantizedTensor
from subbyte.tensors.rotation import Rotation, halves

__all__ = ["Rotated"]


@dataclass(frozen=True, eq=False, slots=True)
class Rotated:
    """A weight [O, I] with y = outputs.vector * Qo^T D Qi (inputs.vector * x): D in codes, Q the rotations' matrices.

    Raises ShapeError (rotations of other sizes).
    """

    dense: QuantizedTensor | CodebookTensor
    inputs: Rotation
    outputs: Rotation

    def __post_init__(self) -> None:
        sizes = (self.outputs.size, self.inputs.size)
        if sizes != self.dense.shape:
            raise ShapeError("rotations of outputs and inputs", list(sizes), list(self.dense.shape))

    @property
    def scheme(self) -> Scheme:
        """That of the codes."""
        return self.dense.scheme

    @property
    def shape(self) -> tuple[int, int]:
        """(O, I)."""
        return self.dense.shape

    def floats(self) -> dict[str, npt.NDArray[np.float32]]:
        """By name, the vectors beside the rotations."""
        sides = (("inputs", self.inputs), ("outputs", self.outputs))
        return {name: side.scales() for name, side in sides if side.vector is not None}

    def refitted(self, floats: dict[str, npt.NDArray[np.float32]]) -> Rotated:
        """The same codes with other vectors in the place of some of `floats()`, rounded to what is stored."""
        sides = {"inputs": self.inputs, "outputs": self.outputs}
        sides |= {name: replace(sides[name], vector=halves(values)) for name, values in floats.items()}
        return replace(self, inputs=sides["inputs"], outputs=sides["outputs"])

    def bare(self) -> Rotated:
        """The same codes between the same rotations, the vectors all 1."""
        return replace(self, inputs=replace(self.inputs, vector=None), outputs=replace(self.outputs, vector=None))

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The weight with both rotations undone: [O, I] f32, newly allocated."""
        return unrotate(self.dense.dequantize(), self.inputs, self.outputs)

    @property
    def nbytes(self) -> int:
        """Bytes of the codes, and of what tells the rotations."""
        return self.dense.nbytes + self.inputs.nbytes + self.outputs.nbytes

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each weight; 0.0 for a weight without any."""
        count = self.shape[0] * self.shape[1]
        return 8 * self.nbytes / count if count else 0.0


def rotate(weight: npt.NDArray[np.float32], inputs: Rotation, outputs: Rotation) -> npt.NDArray[np.float32]:
    """D of a weight [O, I]: Qo diag(1 / outputs.vector) W diag(1 / inputs.vector) Qi^T."""
    half = inputs.forward(weight / inputs.scales())
    return np.ascontiguousarray(outputs.forward(half.T / outputs.scales()).T)


def unrotate(weight: npt.NDArray[np.float32], inputs: Rotation, outputs: Rotation) -> npt.NDArray[np.float32]:
    """The inverse of `rotate`."""
    half = outputs.backward(np.ascontiguousarray(weight.T)) * outputs.scales()
    back: npt.NDArray[np.float32] = inputs.backward(np.ascontiguousarray(half.T)) * inputs.scales()
    return back
