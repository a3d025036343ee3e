"""VPTQ's own files, `quant_method` vptq: what transformers loads where the package vptq is installed.

Codes as ours, but each group's in words of their own, and outliers' unpacked; codebooks as rows of numbers. The package
adds both stages up in the model's dtype, where we have f32. Written only where asked for by name: without the package
nothing reads these files but we. Read in their packed variant, which is what transformers takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from subbyte.checkpoint.formats.format import Layers, stored_dtype
from subbyte.checkpoint.formats.native import SCALE_DTYPES, inconsistent, inexact_scale
from subbyte.checkpoint.raw import Raw
from subbyte.checkpoint.source import Source
from subbyte.errors import CheckpointError, SchemeError, SubbyteError
from subbyte.schemes import Scheme, Vectors
from subbyte.tensors import Coded, QuantizedLayer, VectorTensor
from subbyte.tensors.wide import pack_wide, unpack_wide

__all__ = ["VptqFormat"]

SIZES = {
    "centroids.weight": "codebook",
    "res_centroids.weight": "residual",
    "outlier_centroids.weight": "outlier_codebook",
    "weight_scale": "scale",
    "weight_bias": "bias",
}
"""The floats: their names and those of `VectorTensor.floats`."""
CENTROIDS = ".centroids.weight"


class VptqFormat:
    """The format "vptq"."""

    name = "vptq"
    method = "vptq"
    stem = "model"
    parts: tuple[str, ...] = (*SIZES, "indices", "outlier_indices", "perm")

    def check(self, layers: Layers, *, indexed: bool = False, sparse: bool = False) -> None:
        """Vectors alone, in 16-bit floats, outliers in codes."""
        for name, (weight, activation) in layers.items():
            element = weight.element
            if not isinstance(element, Vectors) or activation is not None:
                given = weight if activation is None else f"{weight} with inputs {activation}"
                raise SchemeError(f"scheme of {name}", given, "vectors and float inputs", "write it as subbyte")
            if element.outliers and not element.outlier_count:
                raise SchemeError(f"scheme of {name}", weight, "outliers in codes", "write it as subbyte")
            if weight.scale_dtype == "f32":
                raise SchemeError(f"scheme of {name}", weight, "codebooks in f16 or bf16", "write it as subbyte")

    def tensors(self, name: str, layer: QuantizedLayer, dtype: str) -> dict[str, Raw]:
        """See `Format`."""
        weight = layer.weight
        self.check({name: (weight.scheme, layer.activation)})
        assert isinstance(weight, VectorTensor)
        element, cols = weight.element, weight.shape[1]
        apart, size = element.columns(cols)
        codes = weight.main.codes(cols - apart)
        order = np.arange(cols, dtype=np.int32) if weight.order is None else weight.order
        if not _permuted(element):
            codes = codes[:, np.argsort(order)]  # every code belongs to one column
        elif cols > 1 << 16:
            raise SchemeError(f"columns of {name}", cols, "65536 with outliers or groups", "write it as subbyte")
        groups = [codes[:, start : start + size] for start in range(0, cols - apart, size)]
        tensors = {"indices": Raw("I32", np.stack([pack_wide(group, _width(element)) for group in groups]))}
        if _permuted(element):
            tensors["perm"] = Raw("I16", order.astype(np.uint16).view(np.int16))
        if isinstance(weight.outliers, Coded):
            unpacked = weight.outliers.codes(apart).astype(np.uint16)[None]
            tensors["outlier_indices"] = Raw("I16", unpacked.view(np.int16))
        for part, own in SIZES.items():
            if (values := weight.floats().get(own)) is not None:
                rows = values if values.ndim == 1 else values.reshape(len(values), -1)
                stored = Raw.from_floats(rows, stored_dtype(weight.scheme, dtype))
                if not np.array_equal(stored.floats(), rows):
                    raise inexact_scale(name, weight.scheme, dtype)
                tensors[part] = stored
        return {f"{name}.{part}": raw for part, raw in tensors.items()}

    def config(
        self,
        layers: Layers,
        keep: Iterable[str] = ("lm_head",),
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> dict[str, Any]:
        """See `Format`; needs the shapes."""
        self.check(layers)
        made, known = {}, shapes or {}
        for name, (weight, _) in sorted(layers.items()):
            shape = known.get(f"{name}.weight", ())
            if len(shape) != 2 or not isinstance(weight.element, Vectors):
                raise CheckpointError(
                    f"shape of {name}.weight", list(shape), "outputs and inputs of a linear of its own"
                )
            made[name] = _entry(weight.element, (shape[0], shape[1]), f"{name}.bias" in known)
        return {"quant_method": self.method, "config_for_layers": made}

    def layers(self, source: Source) -> list[str]:
        """See `Format`."""
        return sorted(name.removesuffix(CENTROIDS) for name in source.names() if name.endswith(CENTROIDS))

    def shape(self, source: Source, name: str) -> tuple[int, int]:
        """See `Format`."""
        entry = _settings(source, name)
        return _number(name, entry, "out_features"), _number(name, entry, "in_features")

    def read(self, source: Source, name: str) -> QuantizedLayer:
        """See `Format`."""
        entry, shape = _settings(source, name), self.shape(source, name)
        stored = source.dtype(f"{name}{CENTROIDS}")
        if stored not in SCALE_DTYPES:
            raise CheckpointError(f"{name}{CENTROIDS}", stored, f"one of {', '.join(SCALE_DTYPES)}")
        for part, flag in (("perm", "enable_perm"), ("weight_scale", "enable_norm"), ("weight_bias", "enable_norm")):
            if (f"{name}.{part}" in source) != bool(entry.get(flag)):
                raise CheckpointError(f"{flag} of {name} in config.json", entry.get(flag), f"what {part} says")
        try:
            element = _element(name, entry, shape)
            scheme = Scheme(element, "tensor", scale_dtype=SCALE_DTYPES[stored])
            return QuantizedLayer(_tensor(source, name, scheme, element, shape))
        except CheckpointError:
            raise
        except SubbyteError as error:
            raise inconsistent(name, error) from error


def _width(element: Vectors) -> int:
    """Bits of a code."""
    return element.count.bit_length() - 1 + max(element.residual, 1).bit_length() - 1


def _permuted(element: Vectors) -> bool:
    """Whether columns stand in an order of their own: elsewhere codes go back to their columns."""
    return element.groups > 1 or element.outliers > 0


def _entry(element: Vectors, shape: tuple[int, int], bias: bool) -> dict[str, Any]:
    """What config.json says of one layer."""
    apart, size = element.columns(shape[1])
    return {
        "in_features": shape[1],
        "out_features": shape[0],
        "vector_lens": [element.outlier_dim or -1, element.dim],
        "num_centroids": [element.outlier_count or -1, element.count],
        "num_res_centroids": [-1, element.residual or -1],
        "group_num": element.groups,
        "group_size": size,
        "outlier_size": apart,
        "indices_as_float": False,
        "enable_norm": element.norm,
        "enable_perm": _permuted(element),
        "is_indice_packed": True,
        "bias": bias,
        "vector_quant_dim": "out",
    }


def _settings(source: Source, name: str) -> Mapping[str, Any]:
    """What config.json says of a layer, by its name or by the last part of it."""
    section = source.config.get("quantization_config")
    for table, key in (("config_for_layers", name), ("shared_layer_config", name.rpartition(".")[2])):
        entries = section.get(table) if isinstance(section, dict) else None
        if isinstance(entries, dict) and isinstance(entries.get(key), dict):
            entry: dict[str, Any] = entries[key]
            for what, wanted in (("is_indice_packed", True), ("indices_as_float", False), ("vector_quant_dim", "out")):
                if entry.get(what, wanted) != wanted:
                    raise CheckpointError(f"{what} of {name} in config.json", entry[what], wanted)
            return entry
    raise CheckpointError(f"{name} in config.json", "nothing", "an entry of config_for_layers or shared_layer_config")


def _number(name: str, entry: Mapping[str, Any], key: str, place: int | None = None) -> int:
    """A number of an entry, or of its pair (outliers, others); 0 for the -1 that says unused."""
    given = entry.get(key)
    if place is not None:
        given = given[place] if isinstance(given, list) and len(given) == 2 else None
    if isinstance(given, bool) or not isinstance(given, int) or not -1 <= given < 1 << 31:
        raise CheckpointError(f"{key} of {name} in config.json", entry.get(key), "whole numbers, -1 for unused")
    return max(given, 0)


def _element(name: str, entry: Mapping[str, Any], shape: tuple[int, int]) -> Vectors:
    apart = _number(name, entry, "outlier_size")
    share = math.floor(100_000 * apart / max(shape[1], 1)) / 1000
    dim, count = (_number(name, entry, key, 0) if apart else 0 for key in ("vector_lens", "num_centroids"))
    element = Vectors(
        _number(name, entry, "vector_lens", 1),
        _number(name, entry, "num_centroids", 1),
        _number(name, entry, "num_res_centroids", 1),
        _number(name, entry, "group_num"),
        share,
        dim,
        count,
        norm=bool(entry.get("enable_norm")),
    )
    if element.columns(shape[1])[0] != apart:
        raise CheckpointError(f"outlier_size of {name}", apart, "a number that leaves equal groups")
    return element


def _tensor(source: Source, name: str, scheme: Scheme, element: Vectors, shape: tuple[int, int]) -> VectorTensor:
    (rows, cols), (apart, size) = shape, element.columns(shape[1])
    books = {"centroids.weight": (element.groups, element.count, element.dim)}
    if element.residual:
        books["res_centroids.weight"] = (element.groups, element.residual, element.dim)
    if element.outlier_count:
        books["outlier_centroids.weight"] = (1, element.outlier_count, element.outlier_dim)
    floats = {}
    for part, (groups, count, dim) in books.items():
        floats[part] = _given(source, f"{name}.{part}", (groups, count * dim)).floats().reshape(groups, count, dim)
    width = _width(element)
    words = _given(source, f"{name}.indices", (element.groups, -(-rows // element.dim), -(-size * width // 32)), "I32")
    codes = np.concatenate([unpack_wide(group, width, size) for group in np.ascontiguousarray(words.data)], axis=1)
    outliers = order = None
    if element.outlier_count:
        found = _given(source, f"{name}.outlier_indices", (1, -(-rows // element.outlier_dim), apart), "I16")
        own = _unsigned(found)[0]
        if own.size and int(own.max()) >= element.outlier_count:
            raise CheckpointError(f"{name}.outlier_indices", int(own.max()), f"0 to {element.outlier_count - 1}")
        outliers = Coded.of(own, floats["outlier_centroids.weight"])
    if f"{name}.perm" in source:
        order = _unsigned(_given(source, f"{name}.perm", (cols,), "I16"))
    norm = [source.floats(f"{name}.{part}") if element.norm else None for part in ("weight_scale", "weight_bias")]
    main = Coded.of(codes, floats["centroids.weight"], floats.get("res_centroids.weight"))
    return VectorTensor(scheme, shape, main, outliers, order, *norm)


def _given(source: Source, name: str, shape: tuple[int, ...], dtype: str | None = None) -> Raw:
    """A tensor of that shape, and dtype where one is named."""
    if source.shape(name) != shape or dtype not in (None, source.dtype(name)):
        wanted = f"{dtype or 'floats'} {list(shape)}"
        raise CheckpointError(name, f"{source.dtype(name)} {list(source.shape(name))}", wanted)
    return source.raw(name)


def _unsigned(raw: Raw) -> npt.NDArray[np.int32]:
    """Numbers of 16 bits that lie in an I16 tensor."""
    return np.ascontiguousarray(raw.data).view(np.uint16).astype(np.int32)
