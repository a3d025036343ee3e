"""Our own format, "subbyte", version 1: docs/format.md, to the byte. Holds every scheme, an index, outliers, rotations,
and codebooks.

Its files are called subbyte.safetensors and not model.safetensors: transformers ignores a quant_method that it does not
know and runs on random weights; this way it does not find any, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from subbyte import kernels
from subbyte.checkpoint.formats.format import Layers, layer_scheme, stored_dtype
from subbyte.checkpoint.raw import Raw
from subbyte.checkpoint.source import Source
from subbyte.errors import CheckpointError, SchemeError, SubbyteError
from subbyte.schemes import E8p, Power, ScaleDtype, Scheme, Table, Vectors
from subbyte.tensors import (
    CodebookTensor,
    Coded,
    Decomposition,
    Kept,
    QuantizedLayer,
    QuantizedTensor,
    Rotated,
    Rotation,
    Sparse,
    TableTensor,
    VectorTensor,
    Weight,
)

__all__ = ["VERSION", "Native"]

VERSION = 1
SCALE_DTYPES: dict[str, ScaleDtype] = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


class Native:
    """The format "subbyte"."""

    name = "subbyte"
    method = "subbyte"
    stem = "subbyte"
    parts: tuple[str, ...] = (
        "weight_codes",
        "weight_scale",
        "weight_scale_codes",
        "weight_scale_scale",
        "weight_scale_zero",
        "weight_zero",
        "weight_zero_codes",
        "weight_zero_scale",
        "weight_zero_zero",
        "weight_index",
        "weight_exponent",
        "weight_codebook",
        "weight_residual",
        "weight_order",
        "weight_bias",
        "outlier_codes",
        "outlier_codebook",
        "outlier_values",
        "weight_shape",
        "sparse_values",
        "sparse_columns",
        "sparse_pointers",
        "kept_values",
        "kept_columns",
        "input_scale",
        "input_vector",
        "input_seed",
        "output_vector",
        "output_seed",
    )

    def check(self, layers: Layers, *, indexed: bool = False, sparse: bool = False) -> None:
        """Every scheme that a weight can have is held."""
        for name, (weight, activation) in layers.items():
            if weight.granularity == "token" or weight.static:
                raise SchemeError(f"scheme of {name}", weight, "granularity tensor, channel or group")
            if activation is not None and activation.granularity not in ("token", "tensor"):
                raise SchemeError(f"activation scheme of {name}", activation, "granularity token or tensor")

    def tensors(self, name: str, layer: QuantizedLayer, dtype: str) -> dict[str, Raw]:
        """See `Format`."""
        whole = layer.weight
        weight = whole.dense if isinstance(whole, Decomposition | Rotated) else whole
        tensors = {"weight_shape": Raw("I64", np.array(weight.shape, np.int64))}
        if isinstance(weight, VectorTensor):
            tensors |= _vectors(name, weight, dtype)
        else:
            tensors["weight_codes"] = Raw("I32", weight.words)
            tensors |= _parameter("weight_scale", name, weight.scale, weight.scheme, dtype)
        if isinstance(weight, QuantizedTensor) and weight.zero is not None:
            tensors |= _parameter("weight_zero", name, weight.zero, weight.scheme, dtype)
        if isinstance(weight, QuantizedTensor) and weight.index is not None:
            tensors["weight_index"] = Raw("I32", weight.index)
        if isinstance(weight, TableTensor) and weight.exponent is not None:
            tensors["weight_exponent"] = Raw("F16", weight.exponent)
        if isinstance(whole, Decomposition):
            tensors |= _outliers(whole)
        if isinstance(whole, Rotated):
            tensors |= _rotation("input", whole.inputs) | _rotation("output", whole.outputs)
        if layer.input_scale is not None:
            tensors["input_scale"] = Raw("F32", np.array([layer.input_scale], np.float32))
        return {f"{name}.{part}": raw for part, raw in tensors.items()}

    def config(
        self,
        layers: Layers,
        keep: Iterable[str] = ("lm_head",),
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> dict[str, Any]:
        """See `Format`; what is not listed is float, so `keep` says nothing new here."""
        return {
            "quant_method": self.method,
            "version": VERSION,
            "layers": {
                name: {"weights": str(weight), "activations": None if activation is None else str(activation)}
                for name, (weight, activation) in sorted(layers.items())
            },
        }

    def layers(self, source: Source) -> list[str]:
        """See `Format`."""
        return sorted(_section(source))

    def shape(self, source: Source, name: str) -> tuple[int, int]:
        """See `Format`."""
        return shape_of(source, f"{name}.weight_shape")

    def read(self, source: Source, name: str) -> QuantizedLayer:
        """See `Format`."""
        entry = _section(source).get(name)
        if not isinstance(entry, dict) or "weights" not in entry:
            raise CheckpointError(f"{name} in config.json", entry, 'an object with "weights" and "activations"')
        written, activation = layer_scheme(name, entry["weights"]), entry.get("activations")
        stored = f"{name}.weight_scale{'' if written.level('scale') is None else '_scale'}"
        if isinstance(written.element, Vectors):
            stored = f"{name}.weight_codebook"
        if source.dtype(stored) not in SCALE_DTYPES:
            raise CheckpointError(stored, source.dtype(stored), f"one of {', '.join(SCALE_DTYPES)}")
        scheme = written.resolve(SCALE_DTYPES[source.dtype(stored)])
        shape = self.shape(source, name)
        try:
            if isinstance(scheme.element, Vectors):
                whole: Weight = _read_vectors(source, name, scheme, shape)
            else:
                weight = _read_codes(source, name, scheme, shape)
                whole = _with_rotations(source, name, _with_outliers(source, name, weight))
            return QuantizedLayer(
                whole,
                None if activation is None else layer_scheme(name, activation),
                input_scale(source, f"{name}.input_scale"),
            )
        except CheckpointError:
            raise
        except SubbyteError as error:
            raise inconsistent(name, error) from error


def _parameter(
    part: str, name: str, values: npt.NDArray[Any] | QuantizedTensor, scheme: Scheme, dtype: str
) -> dict[str, Raw]:
    """The tensors of scales or zero points: floats, codes, or codes with scales and zero points of their own."""
    if isinstance(values, QuantizedTensor):
        tensors = {f"{part}_codes": Raw("I32", values.words)}
        for own, level in (("scale", values.scales()), ("zero", values.zeros())):
            if level is not None:
                tensors |= _parameter(f"{part}_{own}", name, level, values.scheme, dtype)
        return tensors
    if values.dtype == np.uint8:
        return {part: Raw("I32", kernels.pack(values.reshape(1, -1), scheme.bits)[0])}
    stored = Raw.from_floats(values, stored_dtype(scheme, dtype))
    if not np.array_equal(stored.floats(), values):
        raise inexact_scale(name, scheme, dtype)
    return {part: stored}


def _read_floats(
    source: Source, part: str, scheme: Scheme, shape: tuple[int, int], level: Scheme | None
) -> npt.NDArray[np.float32] | QuantizedTensor:
    """Scales, or zero points that are floats, of one level or two."""
    if level is None:
        return source.floats(part)
    return QuantizedTensor(
        level,
        scheme.parameters(shape) if scheme.by_input else scheme.parameters(shape)[::-1],
        source.array(f"{part}_codes"),
        source.floats(f"{part}_scale"),
        source.floats(f"{part}_zero"),
    )


def _read_zero(source: Source, part: str, scheme: Scheme, shape: tuple[int, int]) -> Any:
    """Zero points as the tensor wants them; None where the scheme has none."""
    if scheme.symmetric:
        return None
    if scheme.float_zero:
        return _read_floats(source, part, scheme, shape, scheme.level("zero"))
    sizes = scheme.parameters(shape)
    packed = source.array(part).reshape(1, -1)
    return kernels.unpack(packed, scheme.bits, sizes[0] * sizes[1]).reshape(sizes)


def _read_codes(
    source: Source, name: str, scheme: Scheme, shape: tuple[int, int]
) -> QuantizedTensor | CodebookTensor | TableTensor:
    """What the codes alone stand for."""
    codes = source.array(f"{name}.weight_codes")
    scale = _read_floats(source, f"{name}.weight_scale", scheme, shape, scheme.level("scale"))
    if isinstance(scheme.element, E8p) and not isinstance(scale, QuantizedTensor):
        return CodebookTensor(scheme, shape, codes, scale)
    if isinstance(scheme.element, Power | Table) and not isinstance(scale, QuantizedTensor):
        part = f"{name}.weight_exponent"
        if part in source and source.dtype(part) != "F16":
            raise CheckpointError(part, source.dtype(part), "F16")
        return TableTensor(scheme, shape, codes, scale, source.array(part) if part in source else None)
    zero = _read_zero(source, f"{name}.weight_zero", scheme, shape)
    index = source.array(f"{name}.weight_index") if f"{name}.weight_index" in source else None
    return QuantizedTensor(scheme, shape, codes, scale, zero, index)


VECTORS = {
    "weight_codebook": "codebook",
    "weight_residual": "residual",
    "weight_scale": "scale",
    "weight_bias": "bias",
    "outlier_codebook": "outlier_codebook",
    "outlier_values": "outlier_values",
}
"""The floats of a tensor of vectors: our names and those of `VectorTensor.floats`."""


def _vectors(name: str, weight: VectorTensor, dtype: str) -> dict[str, Raw]:
    """The tensors of vectors: codes, codebooks, and what stands beside them."""
    tensors, floats = {"weight_codes": Raw("I32", weight.main.words)}, weight.floats()
    for part, own in VECTORS.items():
        if own in floats:
            tensors |= _parameter(part, name, floats[own], weight.scheme, dtype)
    if isinstance(weight.outliers, Coded):
        tensors["outlier_codes"] = Raw("I32", weight.outliers.words)
    if weight.order is not None:
        tensors["weight_order"] = Raw.of(weight.order.astype(np.uint16 if len(weight.order) <= 1 << 16 else np.int32))
    return tensors


def _read_vectors(source: Source, name: str, scheme: Scheme, shape: tuple[int, int]) -> VectorTensor:
    """The inverse of `_vectors`."""
    floats = {own: source.floats(f"{name}.{part}") for part, own in VECTORS.items() if f"{name}.{part}" in source}
    order, codes = f"{name}.weight_order", f"{name}.outlier_codes"
    if order in source and source.dtype(order) not in ("U16", "I32"):
        raise CheckpointError(order, source.dtype(order), "U16 or I32")
    outliers = floats.get("outlier_values")
    return VectorTensor(
        scheme,
        shape,
        Coded(source.array(f"{name}.weight_codes"), floats["codebook"], floats.get("residual")),
        Coded(source.array(codes), floats["outlier_codebook"]) if "outlier_codebook" in floats else outliers,
        source.array(order).astype(np.int32) if order in source else None,
        floats.get("scale"),
        floats.get("bias"),
    )


def _rotation(side: str, rotation: Rotation) -> dict[str, Raw]:
    """The tensors of one side's rotation: a seed says that it is a butterfly, a 1 behind it which."""
    tensors = {}
    if rotation.kind != "hadamard":
        told = [rotation.seed, 1] if rotation.kind == "block" else [rotation.seed]
        tensors[f"{side}_seed"] = Raw("I64", np.array(told, np.int64))
    if rotation.vector is not None:
        tensors[f"{side}_vector"] = Raw("F16", rotation.vector)
    return tensors


def _kind(source: Source, seed: str, size: int) -> tuple[Literal["hadamard", "kronecker", "block"], int, int]:
    """Kind, size and seed of the rotation whose seed has this name in the file, if it is there."""
    if seed not in source:
        return "hadamard", size, 0
    told = source.array(seed)
    if source.dtype(seed) != "I64" or told.shape not in ((1,), (2,)) or (told[1:] != 1).any():
        raise CheckpointError(seed, f"{source.dtype(seed)} {told.tolist()}", "I64, a seed, or a seed and 1")
    return "block" if told.size == 2 else "kronecker", size, int(told[0])


def _with_rotations(source: Source, name: str, weight: Weight) -> Weight:
    """The weight between the rotations that the file holds, if it does."""
    sides = []
    for side, size in (("output", weight.shape[0]), ("input", weight.shape[1])):
        seed, vector = f"{name}.{side}_seed", f"{name}.{side}_vector"
        if vector in source and source.dtype(vector) != "F16":
            raise CheckpointError(vector, source.dtype(vector), "F16")
        if seed in source or vector in source:
            kept = source.array(vector) if vector in source else None
            sides.append(Rotation(*_kind(source, seed, size), kept))
    if not sides:
        return weight
    if len(sides) == 1 or not isinstance(weight, QuantizedTensor | CodebookTensor):
        raise CheckpointError(
            f"layer {name}", "one rotation, or outliers beside it", "two rotations around codes alone"
        )
    return Rotated(weight, inputs=sides[1], outputs=sides[0])


def _outliers(weight: Decomposition) -> dict[str, Raw]:
    """The tensors of what stands beside the codes."""
    tensors = {}
    if weight.sparse is not None:
        tensors["sparse_values"] = Raw.of(weight.sparse.values)
        tensors["sparse_columns"] = Raw.of(weight.sparse.columns)
        tensors["sparse_pointers"] = Raw.of(weight.sparse.pointers)
    if weight.kept is not None:
        tensors["kept_values"] = Raw.of(weight.kept.values)
        tensors["kept_columns"] = Raw.of(weight.kept.columns)
    return tensors


def _with_outliers(source: Source, name: str, dense: QuantizedTensor | CodebookTensor | TableTensor) -> Weight:
    """The codes, and what the file holds beside them; the tensors themselves refuse what does not fit."""

    def read(part: str, *dtypes: str) -> Any:
        given = source.dtype(f"{name}.{part}")
        if given not in dtypes:
            raise CheckpointError(f"{name}.{part}", given, " or ".join(dtypes))
        return source.array(f"{name}.{part}")

    sparse = kept = None
    if any(f"{name}.{part}" in source for part in ("sparse_values", "sparse_columns", "sparse_pointers")):
        columns, pointers = read("sparse_columns", "U16", "I32"), read("sparse_pointers", "I32")
        sparse = Sparse(dense.shape, read("sparse_values", "F16", "F32"), columns, pointers)
    if any(f"{name}.{part}" in source for part in ("kept_values", "kept_columns")):
        kept = Kept(read("kept_values", "F16", "F32"), read("kept_columns", "I32"))
    if sparse is None and kept is None:
        return dense
    if not isinstance(dense, QuantizedTensor):
        raise CheckpointError(f"layer {name}", f"outliers beside codes of {dense.scheme}", "codes alone")
    return Decomposition(dense, sparse, kept)


def _section(source: Source) -> dict[str, Any]:
    """The table of layers in config.json, of a version that we read."""
    section = source.config.get("quantization_config")
    version = section.get("version") if isinstance(section, dict) else None
    if version != VERSION:
        hint = "a newer subbyte wrote it: upgrade" if isinstance(version, int) and version > VERSION else ""
        raise CheckpointError("version in quantization_config", version, VERSION, hint)
    layers = section.get("layers") if isinstance(section, dict) else None
    if not isinstance(layers, dict):
        raise CheckpointError("layers in quantization_config", type(layers).__name__, "an object")
    return layers


def shape_of(source: Source, name: str) -> tuple[int, int]:
    """The logical shape [O, I] that stands in an I64 tensor."""
    shape = source.array(name)
    if source.dtype(name) != "I64" or shape.shape != (2,) or (shape < 0).any():
        raise CheckpointError(name, f"{source.dtype(name)} {shape.tolist()}", "I64, two sizes")
    return int(shape[0]), int(shape[1])


def input_scale(source: Source, name: str) -> float | None:
    """A static activation scale, if there is one."""
    if name not in source:
        return None
    scale = source.floats(name)
    if scale.size != 1:
        raise CheckpointError(name, f"{scale.size} numbers", "one")
    return float(scale.reshape(-1)[0])


def inconsistent(name: str, error: SubbyteError) -> CheckpointError:
    """A layer whose tensors and config do not agree."""
    return CheckpointError(f"layer {name}", f"tensors that do not fit ({error})", "a layer as its config says")


def inexact_scale(name: str, scheme: Scheme, dtype: str) -> SchemeError:
    """Scales that were fitted finer than the file can hold."""
    return SchemeError(
        f"scales of {name}",
        f"values that {dtype} cannot hold",
        f"scales fitted in {dtype}",
        f"resolve {scheme} to the dtype of the model before solving, or write {scheme}/f32",
    )
