"""Writes a random Llama of about one billion parameters, shard by shard, to measure memory and time on.

    python -m benches.synthetic FOLDER [--layers 22 --hidden 2048 --mlp 5632]

The defaults are the shape of TinyLlama-1.1B. The weights are normal with the usual initialisation; no tokenizer comes
with them, so calibrate on token files (`tokens.npy`, written beside the weights).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

VOCABULARY = 32000


def write(folder: Path, layers: int = 22, hidden: int = 2048, mlp: int = 5632, seed: int = 0) -> int:
    """Writes config, index, one shard a block and `tokens.npy`; returns the number of parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    kv = hidden // 8
    one = torch.ones(hidden, dtype=torch.bfloat16)

    def normal(shape: tuple[int, int]) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.bfloat16).normal_(0.0, 0.02, generator=generator)

    block = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (mlp, hidden),
        "mlp.up_proj": (mlp, hidden),
        "mlp.down_proj": (hidden, mlp),
    }
    shards = [f"model-{i + 1:05d}-of-{layers + 1:05d}.safetensors" for i in range(layers + 1)]
    index: dict[str, str] = {}
    parameters = 0
    for i, shard in enumerate(shards):
        if i < layers:
            tensors = {f"model.layers.{i}.{k}.weight": normal(shape) for k, shape in block.items()}
            tensors |= {
                f"model.layers.{i}.{k}.weight": one.clone() for k in ("input_layernorm", "post_attention_layernorm")
            }
        else:
            tensors = {k: normal((VOCABULARY, hidden)) for k in ("model.embed_tokens.weight", "lm_head.weight")}
            tensors["model.norm.weight"] = one
        save_file(tensors, folder / shard, {"format": "pt"})
        index |= dict.fromkeys(tensors, shard)
        parameters += sum(v.numel() for v in tensors.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 2 * parameters}, "weight_map": index}, indent=1)
    )
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": kv // 64,
        "head_dim": 64,
        "vocab_size": VOCABULARY,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    np.save(folder / "tokens.npy", np.random.default_rng(seed).integers(3, VOCABULARY, (64, 256)))
    return parameters


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, default in (("layers", 22), ("hidden", 2048), ("mlp", 5632)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    print(f"{write(given.folder, given.layers, given.hidden, given.mlp):,} parameters in {given.folder}")
