"""A tiny random Llama (grouped queries, tied embeddings), its quantized folder, and the float model it should equal."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tests.checkpoint.layers import nearest
from torch import nn

from subbyte.checkpoint import formats, write_json, write_shard
from subbyte.schemes import Scheme
from subbyte.tensors import QuantizedLayer

INPUT_SCALE = 0.0375


def llama(**changes: Any) -> Any:
    """A random model of two blocks, its weights bf16 numbers, its computations f32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    settings = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 97,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    }
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return model.to(torch.bfloat16).float()


def save_float(folder: Path, model: Any) -> None:
    """The model as a bf16 folder."""
    tied = model.config.tie_word_embeddings
    tensors = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    if tied:
        tensors.pop("lm_head.weight")
    folder.mkdir(parents=True, exist_ok=True)
    write_shard(folder / "model.safetensors", tensors)
    write_json(folder / "config.json", _config(model))


def save_quantized(
    folder: Path,
    model: Any,
    form: formats.Format,
    schemes: Callable[[str], tuple[str, str | None]],
    keep: Sequence[str] = ("lm_head",),
) -> nn.Module:
    """Rounds every linear but `keep` to the nearest codes of `schemes(name)`, and writes the folder.

    Returns a float model that computes the same: dequantized weights, inputs rounded by hooks.
    """
    other, layers, tensors = copy.deepcopy(model), {}, {}
    for name, module in other.named_modules():
        if not isinstance(module, nn.Linear) or name in keep:
            continue
        text, inputs = schemes(name)
        activation = None if inputs is None else Scheme.parse(inputs)
        static = activation is not None and activation.static
        layer = QuantizedLayer(
            nearest(module.weight.detach().numpy(), text), activation, INPUT_SCALE if static else None
        )
        layers[name] = (layer.weight.scheme, activation)
        tensors |= form.tensors(name, layer, "bfloat16")
        module.weight.data = torch.from_numpy(layer.weight.dequantize())
        if activation is not None:
            module.register_forward_pre_hook(_rounding(activation))
    for name, value in model.state_dict().items():
        tied_head = name == "lm_head.weight" and model.config.tie_word_embeddings
        if not tied_head and not (name.endswith(".weight") and name.removesuffix(".weight") in layers):
            tensors[name] = value.to(torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    write_shard(folder / f"{form.stem}.safetensors", tensors)
    write_json(folder / "config.json", {**_config(model), "quantization_config": form.config(layers, keep)})
    return other


def _config(model: Any) -> dict[str, Any]:
    return {**model.config.to_dict(), "architectures": [type(model).__name__], "dtype": "bfloat16"}


def _rounding(activation: Scheme) -> Callable[..., tuple[torch.Tensor]]:
    """A hook that does to a linear's input what the scheme says, in plain torch."""

    def hook(_: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (x,) = arguments
        if activation.static:
            scale = torch.tensor(INPUT_SCALE)
        else:
            scale = (x.abs().amax(-1, keepdim=True) if activation.granularity == "token" else x.abs().amax()) / 127.5
        return (torch.clamp(torch.round(x / scale), -128, 127) * scale,)

    return hook


def logits(model: nn.Module) -> torch.Tensor:
    """[2, 16, V] f32 for fixed random tokens."""
    tokens = torch.randint(0, 97, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(tokens).logits.float()


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """|one - other| / |other|."""
    return float((one - other).norm() / other.norm())
