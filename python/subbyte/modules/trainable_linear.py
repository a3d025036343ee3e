"""A quantized linear whose floats can learn: its codes stay, the weight is a differentiable function of the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import nn

from subbyte.tensors import Coded, QuantizedTensor, Rotated, VectorTensor

if TYPE_CHECKING:
    from subbyte.tensors import QuantizedLayer

__all__ = ["TrainableLinear"]


class TrainableLinear(nn.Module):
    """y = x W^T + b in f32, W of a `QuantizedLayer` whose inputs stay floats, b of the `linear` it stands in for.

    `floats` are its parameters, by the names of the tensor's `floats()`: codebooks, scales and biases of vectors, the
    vectors beside rotations, scales and float zero points of integers. Of any other tensor the weight is a constant.
    For each of them W is computed anew from the codes, beside which it is held: memory of about two weights in f32, and
    eight bytes a code.
    """

    def __init__(self, layer: QuantizedLayer, linear: nn.Linear) -> None:
        super().__init__()
        self._layer = layer
        self.linear = linear
        weight = layer.weight
        kept = weight.floats() if isinstance(weight, QuantizedTensor | Rotated | VectorTensor) else {}
        self.floats = nn.ParameterDict({name: nn.Parameter(torch.from_numpy(np.array(v))) for name, v in kept.items()})
        if isinstance(weight, VectorTensor):
            self._keep_vectors(weight)
        elif isinstance(weight, Rotated):
            self.register_buffer("constant", torch.from_numpy(weight.bare().dequantize()))
        elif isinstance(weight, QuantizedTensor):
            self._keep_codes(weight)
        else:
            self.register_buffer("constant", torch.from_numpy(weight.dequantize()))

    def _keep_vectors(self, weight: VectorTensor) -> None:
        columns = weight.shape[1]
        apart, _ = weight.element.columns(columns)
        for name, index in zip(("codebook", "residual"), weight.main.stages(columns - apart), strict=False):
            self.register_buffer(f"{name}_index", torch.from_numpy(index))
        if isinstance(weight.outliers, Coded):
            self.register_buffer("outlier_codebook_index", torch.from_numpy(weight.outliers.stages(apart)[0]))
        back = None if weight.order is None else torch.from_numpy(np.argsort(weight.order))
        self.register_buffer("back", back)

    def _keep_codes(self, weight: QuantizedTensor) -> None:
        scale, zeros = weight.scales(), weight.zeros()
        if zeros is None:
            zeros = np.full(scale.shape, 1 << (weight.scheme.bits - 1))
        self.register_buffer("codes", torch.from_numpy(weight.codes().astype(np.float32)))
        self.register_buffer("scale", torch.from_numpy(np.array(scale)))
        self.register_buffer("zero", torch.from_numpy(zeros.astype(np.float32)))

    def weight(self) -> torch.Tensor:
        """W [O, I] f32."""
        given = self._layer.weight
        if isinstance(given, VectorTensor):
            return self._vectors(given)
        if isinstance(given, QuantizedTensor):
            parts = [self.floats[name] if name in self.floats else getattr(self, name) for name in ("scale", "zero")]
            scale, zero = (_spread(given, part) for part in parts)
            return (cast("torch.Tensor", self.codes) - zero) * scale
        weight = cast("torch.Tensor", self.constant)
        for name, along in (("inputs", (1, -1)), ("outputs", (-1, 1))):
            weight = weight * self.floats[name].reshape(along) if name in self.floats else weight
        return weight

    def _vectors(self, given: VectorTensor) -> torch.Tensor:
        def words(name: str) -> torch.Tensor:
            book = self.floats[name]
            chosen = nn.functional.embedding(getattr(self, f"{name}_index"), book.reshape(-1, book.shape[2]))
            return chosen.transpose(1, 2).reshape(-1, chosen.shape[1])[: given.shape[0]]

        weight = words("codebook")
        if "residual" in self.floats:
            weight = weight + words("residual")
        if given.outliers is not None:
            first = words("outlier_codebook") if "outlier_codebook" in self.floats else self.floats["outlier_values"]
            weight = torch.cat([first, weight], dim=1)
        if self.back is not None:
            weight = weight.index_select(1, cast("torch.Tensor", self.back))
        return weight * self.floats["scale"] + self.floats["bias"] if "scale" in self.floats else weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X [..., I] f32 -> [..., O] f32."""
        return nn.functional.linear(x, self.weight(), self.linear.bias)

    def layer(self) -> QuantizedLayer:
        """The layer with what was learned, rounded to what is stored."""
        weight = self._layer.weight
        if not isinstance(weight, QuantizedTensor | Rotated | VectorTensor):
            return self._layer
        learned = {name: values.detach().numpy().copy() for name, values in self.floats.items()}
        return replace(self._layer, weight=weight.refitted(learned))


def _spread(weight: QuantizedTensor, values: torch.Tensor) -> torch.Tensor:
    """Scales or zero points, one for each weight: something that [O, I] can be multiplied with."""
    scheme, (rows, columns) = weight.scheme, weight.shape
    if scheme.granularity != "group":
        return values
    along, count = (0, rows) if scheme.by_input else (1, columns)
    group = np.arange(count) // scheme.group(count) if weight.index is None else weight.index
    return values.index_select(along, torch.from_numpy(group.astype(np.int64)))
