"""What a checkpoint format has to be able to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from subbyte.checkpoint.raw import Raw
from subbyte.checkpoint.source import Source
from subbyte.errors import CheckpointError, SchemeError
from subbyte.schemes import Scheme
from subbyte.tensors import QuantizedLayer

__all__ = ["Format", "Layers", "layer_scheme", "stored_dtype"]

# module name -> scheme of its weight, scheme of its inputs (None: they stay float)
Layers = Mapping[str, tuple[Scheme, Scheme | None]]


class Format(Protocol):
    """A checkpoint format. Names of layers are those of modules: "model.layers.0.mlp.up_proj"."""

    name: str
    """What `--format` calls it."""
    method: str
    """Its `quant_method` in config.json."""
    stem: str
    """Files are `<stem>.safetensors`, or `<stem>-00001-of-00009.safetensors` with `<stem>.safetensors.index.json`."""
    parts: tuple[str, ...]
    """The names that the tensors of a layer may have, below the layer's own; its bias is not among them."""

    def check(self, layers: Layers, *, indexed: bool = False, sparse: bool = False) -> None:
        """SchemeError naming the first layer that this format cannot hold, and what can."""

    def tensors(self, name: str, layer: QuantizedLayer, dtype: str) -> dict[str, Raw]:
        """The tensors of one layer by full name, `dtype` the model's ("bf16", "bfloat16", ...): it replaces "auto"."""

    def config(
        self,
        layers: Layers,
        keep: Iterable[str] = ("lm_head",),
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> dict[str, Any]:
        """The quantization_config of a model with these quantized layers; `keep`: linears that stay float;
        `shapes`: of the float model's tensors, which not every format asks for."""

    def layers(self, source: Source) -> list[str]:
        """The names of the quantized layers, sorted."""

    def shape(self, source: Source, name: str) -> tuple[int, int]:
        """The shape of the weight that the codes of a layer stand for."""

    def read(self, source: Source, name: str) -> QuantizedLayer:
        """One layer; CheckpointError where tensors, shapes and config do not agree."""


STORED = {
    "f32": "F32", "float32": "F32", "torch.float32": "F32",
    "f16": "F16", "float16": "F16", "torch.float16": "F16",
    "bf16": "BF16", "bfloat16": "BF16", "torch.bfloat16": "BF16",
}  # fmt: skip


def stored_dtype(scheme: Scheme, dtype: object) -> str:
    """safetensors' name of the dtype in which the scales of a scheme lie, in a model of `dtype`."""
    wanted = str(dtype) if scheme.scale_dtype == "auto" else scheme.scale_dtype
    if wanted not in STORED:
        raise SchemeError("dtype of the model", wanted, "float32, float16 or bfloat16")
    return STORED[wanted]


def layer_scheme(name: str, text: object) -> Scheme:
    """A scheme written in a config.json; CheckpointError naming the layer where it does not parse."""
    try:
        return Scheme.parse(text)  # type: ignore[arg-type]
    except SchemeError as error:
        raise CheckpointError(f"scheme of {name} in config.json", text, "a scheme", str(error)) from error
