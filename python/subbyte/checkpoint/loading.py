"""load: a model folder as a model that runs, its quantized linears on their codes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from subbyte import anatomy
from subbyte.checkpoint import formats
from subbyte.checkpoint.source import Source
from subbyte.errors import DependencyError, DtypeError

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["load"]

DTYPES = ("float32", "bfloat16", "float16")


def load(path: str | Path, dtype: str | torch.dtype = "float32") -> nn.Module:
    """The causal language model in a folder: transformers' own class, in evaluation mode, without gradients.

    path    a model folder (`Source.open`), float or in one of our formats. Quantized linears become
            `modules.QuantizedLinear` and stay packed: their float weights are never made
    dtype   of everything else, and of the activations: float32, bfloat16 or float16
    The folder's generation_config.json, where there is one, becomes `model.generation_config`.
    Raises CheckpointError, ArchitectureError, UnknownNameError (a checkpoint format that we do not read), SchemeError
    (a pair of schemes that no kernel runs), DependencyError (extra `hf`), DtypeError.
    """
    try:
        import torch

        from subbyte.modules import QuantizedLinear, materialise, replace_linear, skeleton
    except ImportError as error:
        raise DependencyError("package", f"no {error.name}", "torch", "pip install 'subbyte[hf]'") from error
    wanted = str(dtype).removeprefix("torch.")
    if wanted not in DTYPES:
        raise DtypeError("dtype", dtype, f"one of {', '.join(DTYPES)}")
    kind: torch.dtype = getattr(torch, wanted)
    source = Source.open(path)
    form = formats.detect(source.config)
    quantized = [] if form is None else form.layers(source)
    model = skeleton(source.config, anatomy.find(source.config, formats.logical(source)))
    if form is not None:
        for name in quantized:
            bias = source.read(f"{name}.bias").to(kind) if f"{name}.bias" in source else None
            replace_linear(model, name, QuantizedLinear(form.read(source, name), bias, name))
    materialise(model, "", source.read, kind)
    _adopt_generation_config(model, source.path)
    return model.eval().requires_grad_(False)


def _adopt_generation_config(model: nn.Module, path: Path) -> None:
    """What `generate` falls back on, as transformers' own loading does it."""
    if (path / "generation_config.json").is_file():
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(path)  # type: ignore[assignment]
