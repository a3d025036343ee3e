"""A linear layer that runs on its codes: the weight is never turned back into floats as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from subbyte import kernels
from subbyte.errors import SchemeError, ShapeError
from subbyte.schemes import E8p, Power, Table, Vectors
from subbyte.tensors import (
    Butterfly,
    CodebookTensor,
    Coded,
    Decomposition,
    QuantizedTensor,
    Rotated,
    TableTensor,
    VectorTensor,
    turn,
)

if TYPE_CHECKING:
    from subbyte.schemes import Scheme
    from subbyte.tensors import QuantizedLayer, Weight

__all__ = ["QuantizedLinear"]

Side = Literal["input", "output"]
# The least maximum of an activation row: quantizers must not divide by zero (the 1e-5 of SmoothQuant).
EPS = 1e-5
SCALE_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class QuantizedLinear(nn.Module):
    """y = x W^T + b with W in codes, built from a `QuantizedLayer`.

    Weights alone (activation scheme None): `kernels.wna16` reads the packed words, 1 to 8 bits, symmetric or not, any
    granularity; `kernels.wna16_by_input` where groups run along the outputs (scales and zero points [G, I]).
    Buffers: `words` i32 [O, ceil(I * bits / 32)], `scale` [O, G] in the scale dtype, `zero` [O, G]
    (asymmetric only; u8, or in the scale dtype where zero points are floats), `order` i32 [I] (act-order only: the
    columns sorted by group, in which the kernel reads x). What a `Decomposition` keeps beside the codes is added while
    sums are still f32: entries by `kernels.csr` from `sparse_values` [E], `sparse_columns` [E] u16 or i32 and
    `sparse_pointers` i32 [O + 1], whole columns by a product with `kept_values` [O, k] of the columns `kept_columns`.

    Values of a table: `kernels.lookup`, with `words`, `scale` and `table` [1, 2^bits] or [O, 2^bits] f32.

    Vectors of codebooks that stand beside them: `kernels.codebook_gemm`, with `words`, `codebook` and `residual` in the
    scale dtype; a second product with `outlier_words` and `outlier_codebook`, or with floats, `outlier_values` [O, n],
    for the first places; `places` [I] u16 or i32 are the columns of x that the places read. `column_scale` [I]
    multiplies x before, and `column_bias` [I] with x gives one number that all outputs share.

    Vectors of a codebook that all share: `kernels.codebook_gemm`, with `words` and `scale` [1, 1]. What is `Rotated` is
    turned on both sides of the product, in f32: `input_vector` and `output_vector` f16 or None, and for a
    `Butterfly` the f32 factors and the orders that its seed stands for, `input_left`, `input_right`, `input_before`,
    `input_after`, the same of `output`.

    With a second level, `scale` (and `zero`) give way to `scale_words` i32 [G, ceil(O * bits / 32)], `scale_scale` and
    `scale_zero` [G, O / run]: they stay packed, and each call decodes them for itself.

    int8 activations: `kernels.w8a8`; weights symmetric with one scale per row or per tensor. Buffers: `codes` i8 [O, I]
    (fewer bits are widened: the kernel takes bytes), `scale` f32 [O] or [1]. The activation scheme says where the other
    scale comes from: "int8/token" and "int8/tensor" find it while running (max|x| / 127.5, or / 127 when narrow),
    "int8/tensor/static" has it from calibration.

    x may be f32, f16 or bf16 of any leading shape; the result has its dtype.
    Raises SchemeError (what no kernel runs: a pair of schemes, or quantized inputs beside outliers, rotations or
    codebooks), ShapeError (bias);
    `name` says where.
    """

    words: torch.Tensor
    codes: torch.Tensor
    scale: torch.Tensor | None
    zero: torch.Tensor | None
    table: torch.Tensor | None
    order: torch.Tensor | None
    bias: torch.Tensor | None
    sparse_values: torch.Tensor | None
    sparse_columns: torch.Tensor | None
    sparse_pointers: torch.Tensor | None
    kept_values: torch.Tensor | None
    kept_columns: torch.Tensor | None
    codebook: torch.Tensor
    residual: torch.Tensor | None
    outlier_words: torch.Tensor | None
    outlier_codebook: torch.Tensor | None
    outlier_values: torch.Tensor | None
    column_scale: torch.Tensor | None
    column_bias: torch.Tensor | None
    places: torch.Tensor | None

    def __init__(self, layer: QuantizedLayer, bias: torch.Tensor | None = None, name: str = "layer") -> None:
        super().__init__()
        whole = layer.weight
        weight = whole.dense if isinstance(whole, Decomposition | Rotated) else whole
        self.out_features, self.in_features = weight.shape
        self.scheme = weight.scheme
        self.activation = layer.activation
        self.group = weight.scheme.group(weight.scheme.along(weight.shape))
        self.input_scale = layer.input_scale
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ShapeError(f"bias of {name}", list(bias.shape), [self.out_features])
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self._keep_outliers(whole)
        self.rotated = isinstance(whole, Rotated)
        if isinstance(whole, Rotated):
            self._keep_rotations(whole)
        if layer.activation is None and isinstance(weight, VectorTensor):
            self._keep_vectors(weight)
        elif layer.activation is None and isinstance(weight, CodebookTensor):
            self.register_buffer("words", torch.from_numpy(np.array(weight.words)))
            self.register_buffer("scale", torch.from_numpy(np.array(weight.scale)))
        elif layer.activation is None and isinstance(weight, TableTensor):
            dtype = SCALE_DTYPES.get(weight.scheme.scale_dtype, torch.float32)
            self.register_buffer("words", torch.from_numpy(np.array(weight.words)))
            self.register_buffer("scale", self._per_row(weight.scale).to(dtype))
            self.register_buffer("table", torch.from_numpy(weight.table()))
        elif layer.activation is None and isinstance(weight, QuantizedTensor):
            self._keep_words(weight)
        elif layer.activation is None or not isinstance(whole, QuantizedTensor):
            given = f"inputs {layer.activation} and a {type(whole).__name__}"
            raise SchemeError(f"layer {name}", given, "float inputs, where a weight is more than codes and scales")
        else:
            _check_activation(layer.activation, whole.scheme, name)
            self._keep_codes(whole)

    def _keep_words(self, weight: QuantizedTensor) -> None:
        words = weight.words
        if weight.index is not None:
            order = np.argsort(weight.index, kind="stable").astype(np.int32)
            words = kernels.pack(np.ascontiguousarray(weight.codes()[:, order]), weight.scheme.bits)
            self.register_buffer("order", torch.from_numpy(order))
        else:
            self.register_buffer("order", None)
        self.register_buffer("words", torch.from_numpy(np.array(words)))
        dtype = SCALE_DTYPES.get(weight.scheme.scale_dtype, torch.float32)
        for name, values in (("scale", weight.scale), ("zero", weight.zero)):
            self.register_buffer(name, None)
            if isinstance(values, QuantizedTensor):
                self.register_buffer(f"{name}_words", torch.from_numpy(np.array(values.words)))
                for part, level in (("scale", values.scales()), ("zero", values.zeros())):
                    self.register_buffer(f"{name}_{part}", torch.from_numpy(np.array(level)).to(dtype))
            elif values is not None:
                rows = self._per_row(values)
                self.register_buffer(name, rows.to(dtype) if values.dtype == np.float32 else rows)

    def _keep_vectors(self, weight: VectorTensor) -> None:
        self.apart, _ = weight.element.columns(self.in_features)
        coded = weight.outliers if isinstance(weight.outliers, Coded) else None
        self.register_buffer("words", torch.from_numpy(np.array(weight.main.words)))
        self.register_buffer("outlier_words", None if coded is None else torch.from_numpy(np.array(coded.words)))
        dtype, floats = SCALE_DTYPES.get(weight.scheme.scale_dtype, torch.float32), weight.floats()
        for name in ("codebook", "residual", "outlier_codebook", "outlier_values", "scale", "bias"):
            values = torch.from_numpy(np.array(floats[name])).to(dtype) if name in floats else None
            self.register_buffer(name if name not in ("scale", "bias") else f"column_{name}", values)
        narrow = np.uint16 if self.in_features <= 1 << 16 else np.int32
        places = None if weight.order is None else torch.from_numpy(weight.order.astype(narrow))
        self.register_buffer("places", places)

    def _keep_outliers(self, weight: Weight) -> None:
        sparse = weight.sparse if isinstance(weight, Decomposition) else None
        kept = weight.kept if isinstance(weight, Decomposition) else None
        for prefix, part, names in (
            ("sparse", sparse, ("values", "columns", "pointers")),
            ("kept", kept, ("values", "columns")),
        ):
            for name in names:
                array = None if part is None else torch.from_numpy(np.array(getattr(part, name)))
                self.register_buffer(f"{prefix}_{name}", array)

    def _keep_rotations(self, weight: Rotated) -> None:
        for side, rotation in (("input", weight.inputs), ("output", weight.outputs)):
            vector = None if rotation.vector is None else torch.from_numpy(np.array(rotation.vector))
            self.register_buffer(f"{side}_vector", vector)
            steps = rotation.steps(back=side == "output")
            for name in Butterfly._fields:
                array = None if steps is None else torch.from_numpy(np.array(getattr(steps, name)))
                self.register_buffer(f"{side}_{name}", array)

    def _keep_codes(self, weight: QuantizedTensor) -> None:
        signed = weight.codes().astype(np.int16) - (1 << (weight.scheme.bits - 1))
        self.register_buffer("codes", torch.from_numpy(signed.astype(np.int8)))
        self.register_buffer("scale", torch.from_numpy(np.array(weight.scales(), np.float32).reshape(-1)))

    def _per_row(self, values: NDArray[Any]) -> torch.Tensor:
        """What the tensor keeps, but [O, 1] of the one scale of a whole tensor: the kernel wants rows."""
        whole = self.scheme.granularity == "tensor"
        return torch.from_numpy(np.array(np.broadcast_to(values, (self.out_features, 1)) if whole else values))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X [..., I] f32, f16 or bf16 -> [..., O] of the same dtype."""
        rows = x.reshape(-1, self.in_features)
        out = self._weight_only(rows) if self.activation is None else self._integer(rows, self.activation)
        return out.reshape(*x.shape[:-1], self.out_features)

    def _weight_only(self, x: torch.Tensor) -> torch.Tensor:
        dtype = x.dtype
        if isinstance(self.scheme.element, Vectors):
            x = x.float()  # the products of outliers and others add up before the one rounding
        elif self.rotated:
            x = self._turned(self._scaled(x.float(), "input"), "input")
        elif self.sparse_values is not None or self.kept_values is not None:
            x = x.float()  # the parts add up before the one rounding to the dtype of x
        out = self._product(x)
        if self.sparse_values is not None:
            entries = (self.sparse_values, self.sparse_columns, self.sparse_pointers)
            out = cast("torch.Tensor", kernels.csr(x.contiguous(), *entries, base=out))
        if self.kept_values is not None and self.kept_columns is not None:
            out = torch.addmm(out, x.index_select(1, self.kept_columns), self.kept_values.float().T)
        if self.rotated:
            out = self._scaled(self._turned(out, "output"), "output")
        out = out.to(dtype)
        return out if self.bias is None else out + self.bias.to(out.dtype)

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        """X times the weight that the codes alone stand for."""
        if isinstance(self.scheme.element, Vectors):
            return self._vectors(x)
        if isinstance(self.scheme.element, E8p):
            out = kernels.codebook_gemm(x.contiguous(), self.words, self.scheme.bits)
            return cast("torch.Tensor", out * cast("torch.Tensor", self.scale).to(out.dtype))
        if isinstance(self.scheme.element, Power | Table):
            return cast("torch.Tensor", kernels.lookup(x.contiguous(), self.words, self.scale, self.table, self.group))
        scale, zero = self._decoded("scale"), self._decoded("zero")
        weight = self.words, scale, zero, self.scheme.bits, self.group
        if self.scheme.by_input:
            return cast("torch.Tensor", kernels.wna16_by_input(x.contiguous(), *weight))
        return cast("torch.Tensor", kernels.wna16(x.contiguous(), *weight, self.order))

    def _vectors(self, x: torch.Tensor) -> torch.Tensor:
        """X [T, I] f32 times the vectors' values, scaled and shifted by columns: [T, O] f32."""
        shift = None if self.column_bias is None else x @ self.column_bias.float()
        if self.column_scale is not None:
            x = x * self.column_scale.float()
        if self.places is not None:
            x = x.index_select(1, self.places.to(torch.int32))
        first, rest = x[:, : self.apart], x[:, self.apart :].contiguous()
        outputs = self.out_features
        out = kernels.codebook_gemm(rest, self.words, codebook=self.codebook, residual=self.residual, outputs=outputs)
        if self.outlier_codebook is not None:
            words, codebook = self.outlier_words, self.outlier_codebook
            out = out + kernels.codebook_gemm(first.contiguous(), words, codebook=codebook, outputs=outputs)
        elif self.outlier_values is not None:
            out = torch.addmm(out, first, self.outlier_values.float().T)
        return cast("torch.Tensor", out if shift is None else out + shift[:, None])

    def _scaled(self, x: torch.Tensor, side: Side) -> torch.Tensor:
        vector = getattr(self, f"{side}_vector")
        return x if vector is None else x * vector.float()

    def _turned(self, x: torch.Tensor, side: Side) -> torch.Tensor:
        parts = [getattr(self, f"{side}_{name}") for name in Butterfly._fields]
        steps = None if parts[0] is None else Butterfly(*parts)
        return cast("torch.Tensor", turn(x.contiguous(), steps, back=side == "output"))

    def _decoded(self, name: Literal["scale", "zero"]) -> torch.Tensor | None:
        """Scales or zero points [O, G], from their codes where they have a second level."""
        level = self.scheme.level(name)
        if level is None:
            return cast("torch.Tensor | None", getattr(self, name))
        along = self.in_features if self.scheme.by_input else self.out_features
        codes = kernels.unpack(getattr(self, f"{name}_words"), level.bits, along)
        scale, zero = getattr(self, f"{name}_scale").float(), getattr(self, f"{name}_zero").float()
        values = cast("torch.Tensor", kernels.dequantize_affine(codes, scale, zero, group=level.group(along)))
        return values if self.scheme.by_input else values.T.contiguous()

    def _integer(self, x: torch.Tensor, activation: Scheme) -> torch.Tensor:
        dtype, x = x.dtype, x.float().contiguous()
        if activation.granularity == "token" and activation.narrow:
            codes, scale = kernels.quantize_tokens(x, eps=EPS)
        elif activation.granularity == "token":
            scale = x.abs().amax(dim=1, keepdim=True).clamp_min(EPS) / 127.5
            codes = kernels.quantize_symmetric(x, scale, bits=8, narrow=False)
            scale = scale.reshape(-1)
        else:
            scale = self._tensor_scale(x, activation)
            flat = kernels.quantize_symmetric(x.reshape(1, -1), scale.reshape(1, 1), bits=8, narrow=activation.narrow)
            codes = flat.reshape(x.shape)
        bias = None if self.bias is None else self.bias.float()
        return cast("torch.Tensor", kernels.w8a8(codes, self.codes, scale, self.scale, bias=bias)).to(dtype)

    def _tensor_scale(self, x: torch.Tensor, activation: Scheme) -> torch.Tensor:
        if self.input_scale is not None:
            return torch.tensor([self.input_scale], dtype=torch.float32)
        largest = x.abs().amax() if x.numel() else torch.zeros(())
        return (largest.clamp_min(EPS) / (127.0 if activation.narrow else 127.5)).reshape(1)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers: what this layer holds in memory."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        activation = "" if self.activation is None else f", activation={self.activation}"
        ordered = "" if getattr(self, "order", None) is None else ", act_order=True"
        apart = "" if self.sparse_values is None else f", sparse={self.sparse_values.numel()}"
        apart += "" if self.kept_columns is None else f", kept={self.kept_columns.numel()}"
        apart += ", rotated=True" if self.rotated else ""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"scheme={self.scheme}{activation}{ordered}{apart}"
        )


def _check_activation(activation: Scheme, weight: Scheme, name: str) -> None:
    if activation.bits != 8 or not activation.symmetric or activation.granularity not in ("token", "tensor"):
        raise SchemeError(
            f"activation scheme of {name}", activation, "int8/token, int8/tensor or int8/tensor/static",
            "the integer kernel multiplies symmetric bytes",
        )  # fmt: skip
    if not weight.symmetric or weight.granularity not in ("channel", "tensor") or weight.by_input:
        raise SchemeError(
            f"weight scheme of {name}", f"{weight} with int8 activations", "symmetric, per channel or per tensor",
            "groups and zero points would need float sums inside the integer product",
        )  # fmt: skip
