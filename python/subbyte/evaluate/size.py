"""How large a model is: bits for each quantized weight, every stored bit counted, and bytes in all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from subbyte import anatomy
from subbyte.checkpoint import Source, formats
from subbyte.modules import QuantizedLinear

__all__ = ["Size", "checkpoint_size", "model_size"]


@dataclass(frozen=True)
class Size:
    """What a model takes.

    scheme           of its linears, or their dtype where it is a float model; the most frequent first if there are more
    bits_per_weight  of the quantized linears (of the linears in the blocks, where none is): codes, scales, zero points,
                     indices and padding, over the number of weights they stand for. Biases do not count
    model_bytes      of all tensors, embeddings, norms and head included
    """

    scheme: str
    bits_per_weight: float
    model_bytes: int


def checkpoint_size(path: str | Path) -> Size:
    """The size of a model folder, from its files. Raises CheckpointError, UnknownNameError (checkpoint format)."""
    source = Source.open(path)
    total = sum(source.nbytes(name) for name in source.names())
    form = formats.detect(source.config)
    schemes: Counter[str] = Counter()
    stored = weights = 0
    if form is not None:
        for name in form.layers(source):
            layer = form.read(source, name)
            inputs = "" if layer.activation is None else f" x {layer.activation}"
            schemes[f"{layer.weight.scheme}{inputs}"] += 1
            weights += layer.weight.shape[0] * layer.weight.shape[1]
            stored += sum(source.nbytes(p) for part in form.parts if (p := f"{name}.{part}") in source)
    if not schemes:
        found = anatomy.find(source.config, {name: source.shape(name) for name in source.names()})
        for name in (f"{linear}.weight" for i in range(found.n_blocks) for linear in found.linears(i)):
            if name in source:
                rows, cols = source.shape(name)
                schemes[source.dtype(name)] += 1
                weights += rows * cols
                stored += source.nbytes(name)
    return Size(_spelled(schemes), _bits(stored, weights), total)


def model_size(model: nn.Module) -> Size:
    """The size of a model in memory; a float model's linears count without its head."""
    parts = [*model.parameters(), *model.buffers()]
    total = sum(part.numel() * part.element_size() for part in parts)
    quantized = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    schemes = Counter(
        f"{module.scheme}" + ("" if module.activation is None else f" x {module.activation}") for module in quantized
    )
    stored = sum(
        buffer.numel() * buffer.element_size()
        for module in quantized
        for name, buffer in module.named_buffers()
        if name != "bias"
    )
    weights = sum(module.in_features * module.out_features for module in quantized)
    if not quantized:
        head = cast("Any", model).get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        linears = [module.weight for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
        schemes = Counter(str(weight.dtype).removeprefix("torch.") for weight in linears)
        stored = sum(weight.numel() * weight.element_size() for weight in linears)
        weights = sum(weight.numel() for weight in linears)
    return Size(_spelled(schemes), _bits(stored, weights), total)


def _spelled(schemes: Counter[str]) -> str:
    first = [name for name, _ in schemes.most_common(2)]
    more = len(schemes) - len(first)
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")


def _bits(nbytes: int, weights: int) -> float:
    return 8 * nbytes / weights if weights else 0.0
