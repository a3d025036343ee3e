"""Tiny random models of every family, saved the way their authors would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

SMALL = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 0,
}
SLIDING = {"head_dim": 16, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
OPT = {
    "vocab_size": 96,
    "hidden_size": 64,
    "ffn_dim": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "word_embed_proj_dim": 64,
    "dropout": 0.0,
}
ENCODER = {key: SMALL[key] for key in SMALL if key not in ("num_key_value_heads", "bos_token_id", "pad_token_id")}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SMALL),
    "llama-biased": ("llama", {**SMALL, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama-mha": ("llama", {**SMALL, "num_key_value_heads": 4}),
    "mistral": ("mistral", {**SMALL, "sliding_window": 6}),
    "qwen2": ("qwen2", SMALL),
    "qwen3": ("qwen3", {**SMALL, "head_dim": 32, "tie_word_embeddings": True}),
    "gemma": ("gemma", {**SMALL, "head_dim": 16}),
    "gemma2": ("gemma2", {**SMALL, **SLIDING}),
    "gemma3": ("gemma3_text", {**SMALL, **SLIDING}),
    "phi3": ("phi3", SMALL),
    "opt": ("opt", OPT),
    "opt-350m": ("opt", {**OPT, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    "mixtral": ("mixtral", {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "bert": ("bert", ENCODER),
    "bert-relu": ("bert", {**ENCODER, "hidden_act": "relu"}),
    "roberta": ("roberta", ENCODER),
    "xlm-roberta": ("xlm-roberta", ENCODER),
}
GENERIC: dict[str, tuple[str, dict[str, Any]]] = {
    "olmo2": ("olmo2", {**SMALL, "num_key_value_heads": 4}),
    # Its blocks return tuples, and its masks depend on the batch.
    "bloom": ("bloom", {"vocab_size": 96, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "stablelm": ("stablelm", SMALL),
}


def save(family: str, folder: Path, seed: int = 0) -> Path:
    """Writes the model with every parameter random, so that no norm or bias is a no-op; returns the folder."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    model_type, settings = (FAMILIES | GENERIC)[family]
    torch.manual_seed(seed)
    auto = AutoModel if "bert" in family else AutoModelForCausalLM
    model = auto.from_config(AutoConfig.for_model(model_type, **settings))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def opened(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]], Callable[[str], torch.Tensor]]:
    """Config, shapes of all tensors, and a function that reads one."""
    config = json.loads((folder / "config.json").read_text())
    file = safe_open(folder / "model.safetensors", "pt")
    names = list(file.keys())
    return config, {name: tuple(file.get_slice(name).get_shape()) for name in names}, file.get_tensor


def reference(folder: Path) -> Any:
    """The model as transformers loads it, in f32."""
    import transformers

    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, architecture).from_pretrained(folder, dtype=torch.float32).eval()


def outputs(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Logits, or the last hidden states of an encoder, for tokens [S, T]."""
    found = model(x)
    result: torch.Tensor = found.logits if hasattr(found, "logits") else found.last_hidden_state
    return result


def tokens(sequences: int = 5, length: int = 12, vocabulary: int = 96, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, vocabulary, (sequences, length), generator=torch.Generator().manual_seed(seed))
