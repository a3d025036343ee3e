from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from subbyte.anatomy import Anatomy, architectures, find
from subbyte.errors import ArchitectureError

LLAMA = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}
PARTS = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]


def llama_names(head: bool = True, blocks: int = 2) -> list[str]:
    names = [f"model.layers.{i}.{part}.weight" for i in range(blocks) for part in PARTS]
    names += [f"model.layers.{i}.{n}layernorm.weight" for i in range(blocks) for n in ("input_", "post_attention_")]
    return ["model.embed_tokens.weight", "model.norm.weight", *names, *(["lm_head.weight"] if head else [])]


def short(names: list[list[str]] | tuple[str, ...]) -> object:
    return [n.rpartition(".")[2] for n in names] if isinstance(names, tuple) else [short(tuple(n)) for n in names]


def test_llama_in_full() -> None:
    anatomy = find({**LLAMA, "num_key_value_heads": 2}, llama_names())
    assert (anatomy.blocks, anatomy.n_blocks, anatomy.head, anatomy.norm) == (
        "model.layers",
        2,
        "lm_head",
        "model.norm",
    )
    assert anatomy.embedding == ("model.embed_tokens",)
    assert not anatomy.tied
    assert not anatomy.generic
    assert anatomy.linears(1) == [f"model.layers.1.{part}" for part in PARTS]
    assert short(anatomy.stages(0)) == [
        ["q_proj", "k_proj", "v_proj"],
        ["o_proj"],
        ["gate_proj", "up_proj"],
        ["down_proj"],
    ]
    assert short(anatomy.fused(0)) == [["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"]]
    norm, mlp, gate = anatomy.pairs(1)
    assert norm.producer == "model.layers.1.input_layernorm"
    assert (norm.kind, norm.norm_offset, norm.inspect) == ("norm", 0.0, "model.layers.1.self_attn")
    assert short(norm.consumers) == ["q_proj", "k_proj", "v_proj"]
    assert (mlp.producer, mlp.inspect) == ("model.layers.1.post_attention_layernorm", "model.layers.1.mlp")
    assert (gate.kind, gate.producer, gate.inspect) == ("gate", "model.layers.1.mlp.up_proj", gate.consumers[0])


def test_grouped_queries_have_their_value_pair_only_on_request() -> None:
    grouped = find({**LLAMA, "num_key_value_heads": 2}, llama_names())
    assert "value_output" not in [pair.kind for pair in grouped.pairs(0)]
    (pair,) = [pair for pair in grouped.pairs(0, grouped=True) if pair.kind == "value_output"]
    assert (pair.heads, pair.kv_heads, pair.head_dim, pair.repeats) == (4, 2, 16, 2)
    for config in (LLAMA, {**LLAMA, "num_key_value_heads": 4}, {**LLAMA, "num_key_value_heads": None}):
        (pair,) = [pair for pair in find(config, llama_names()).pairs(0) if pair.kind == "value_output"]
        assert pair.repeats == 1


@pytest.mark.parametrize(
    ("head", "setting", "tied"),
    [(True, None, False), (True, False, False), (True, True, True), (False, None, True), (False, True, True)],
)
def test_a_head_without_tensors_is_tied(head: bool, setting: bool | None, tied: bool) -> None:
    assert find({**LLAMA, "tie_word_embeddings": setting}, llama_names(head)).tied is tied


def test_missing_parts_are_named() -> None:
    names = [name for name in llama_names() if "1.mlp.up" not in name]
    with pytest.raises(ArchitectureError, match=r"model\.layers\.1\.mlp\.up_proj"):
        find(LLAMA, names)
    with pytest.raises(ArchitectureError, match="and 1 more"):
        find({**LLAMA, "num_hidden_layers": 3}, llama_names())
    with pytest.raises(ArchitectureError, match="lm_head"):
        find({**LLAMA, "tie_word_embeddings": False}, llama_names(head=False))


@pytest.mark.parametrize("config", [{}, {"architectures": None}, {"architectures": []}, {"architectures": [3]}])
def test_a_config_without_architecture(config: dict[str, object]) -> None:
    with pytest.raises(ArchitectureError, match="architectures"):
        find(config, llama_names())


@pytest.mark.parametrize("layers", [None, 0, "two"])
def test_a_config_without_layers(layers: object) -> None:
    with pytest.raises(ArchitectureError, match="num_hidden_layers"):
        find({**LLAMA, "num_hidden_layers": layers}, llama_names())


def test_numbers_may_stand_in_the_text_config() -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "text_config": {k: v for k, v in LLAMA.items() if k != "architectures"},
    }
    assert find(config, llama_names()).n_blocks == 2


def test_a_quantized_checkpoint_has_the_same_anatomy() -> None:
    names = [name.replace("_proj.weight", "_proj.weight_packed") for name in llama_names()]
    assert find(LLAMA, names) == find(LLAMA, llama_names())
    assert find({"architectures": ["Other"]}, names).linears(1) == find(LLAMA, names).linears(1)


def mixtral() -> Anatomy:
    config = {**LLAMA, "architectures": ["MixtralForCausalLM"], "num_local_experts": 3, "num_experts_per_tok": 2}
    attention = [name for name in llama_names() if ".mlp." not in name]
    moe = "model.layers.{}.block_sparse_moe.{}.weight"
    experts = [moe.format(i, f"experts.{n}.w{w}") for i in range(2) for n in range(3) for w in (1, 2, 3)]
    return find(config, [*attention, *experts, *(moe.format(i, "gate") for i in range(2))])


def test_mixtral_expands_its_experts() -> None:
    anatomy = mixtral()
    assert len(anatomy.linears(0)) == 4 + 3 * 3
    assert not any(name.endswith("block_sparse_moe.gate") for name in anatomy.linears(0))
    assert short(anatomy.fused(0)) == [["q_proj", "k_proj", "v_proj"], *[["w1", "w3"]] * 3]
    *_, joint, first, second, third = anatomy.pairs(0)
    assert joint.floats == ("model.layers.0.block_sparse_moe.gate",)
    assert len(joint.consumers) == 6
    for n, pair in enumerate((first, second, third)):
        expert = f"model.layers.0.block_sparse_moe.experts.{n}"
        assert (pair.producer, pair.consumers, pair.inspect) == (f"{expert}.w3", (f"{expert}.w2",), f"{expert}.w2")
    assert anatomy.experts is not None
    assert (anatomy.experts.count, anatomy.experts.chosen) == (3, 2)


def test_mixtral_needs_its_numbers() -> None:
    with pytest.raises(ArchitectureError, match="num_local_experts"):
        find({**LLAMA, "architectures": ["MixtralForCausalLM"]}, llama_names())


def test_gemma_adds_one_to_its_norms_and_keeps_away_from_the_ones_behind() -> None:
    names = llama_names()
    for architecture in ("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"):
        pairs = find({**LLAMA, "architectures": [architecture]}, names).pairs(0)
        assert [pair.norm_offset for pair in pairs] == [1.0, 0.0, 1.0, 0.0]
        inner = "post_attention_layernorm" if architecture == "GemmaForCausalLM" else "pre_feedforward_layernorm"
        assert [pair.producer.rpartition(".")[2] for pair in pairs if pair.kind == "norm"] == ["input_layernorm", inner]


def opt_names() -> list[str]:
    parts = ["fc1", "fc2", *(f"self_attn.{x}_proj" for x in ("q", "k", "v", "out"))]
    return [
        "model.decoder.embed_tokens.weight",
        *(f"model.decoder.layers.{i}.{p}.weight" for i in range(2) for p in parts),
    ]


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({}, ["norm", "value_output", "norm", "linear"]),
        ({"activation_function": "gelu"}, ["norm", "value_output", "norm"]),
        ({"do_layer_norm_before": False}, ["value_output", "linear"]),
        ({"layer_norm_elementwise_affine": False}, ["value_output", "linear"]),
    ],
)
def test_opt_pairs_depend_on_the_config(change: dict[str, object], kinds: list[str]) -> None:
    config = {**LLAMA, "architectures": ["OPTForCausalLM"], "activation_function": "relu", "do_layer_norm_before": True}
    assert [pair.kind for pair in find({**config, **change}, opt_names()).pairs(0)] == kinds


def test_unknown_architectures_fall_back_and_say_so() -> None:
    shapes = {name: (8,) if "norm" in name else (8, 8) for name in llama_names()}
    shapes |= {"vision.blocks.0.fc.weight": (8, 8), "model.layers.0.self_attn.scale.weight": (8,)}
    anatomy = find({"architectures": ["NewForCausalLM"]}, shapes)
    assert anatomy.generic
    assert "NewForCausalLM" in anatomy.note
    assert (anatomy.blocks, anatomy.n_blocks, anatomy.head) == ("model.layers", 2, "lm_head")
    assert anatomy.linears(0) == [f"model.layers.0.{part}" for part in PARTS]
    assert len(anatomy.stages(0)) == 1
    assert anatomy.pairs(0) == anatomy.fused(0) == []
    assert find({"architectures": ["NewForCausalLM"]}, llama_names()).linears(0) == anatomy.linears(0)


def test_the_fallback_needs_blocks_without_gaps() -> None:
    with pytest.raises(ArchitectureError, match="gap"):
        find({"architectures": ["New"]}, [name.replace("layers.1.", "layers.2.") for name in llama_names()])
    with pytest.raises(ArchitectureError, match="repeated blocks"):
        find({"architectures": ["New"]}, ["embed.weight", "head.weight"])


def test_restricted_keeps_what_it_must_scale() -> None:
    anatomy = find(LLAMA, llama_names())
    one = anatomy.restricted([name for name in anatomy.linears(0) if "q_proj" not in name and "mlp" not in name])
    assert short(one.stages(0)) == [["k_proj", "v_proj"], ["o_proj"]]
    assert one.linears(1) == []
    assert short(one.pairs(0)[0].floats) == ["q_proj"]
    assert len(one.pairs(0)) == 2


def test_blocks_are_counted() -> None:
    anatomy = find(LLAMA, llama_names())
    assert anatomy.block(1) == "model.layers.1"
    with pytest.raises(ArchitectureError, match="0 to 1"):
        anatomy.linears(2)


def test_every_family_of_the_data_resolves() -> None:
    causal = {"Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Gemma3", "Phi3", "OPT", "Mixtral"}
    encoders = {"BertModel", "RobertaModel", "XLMRobertaModel"}
    assert set(architectures()) == {f"{name}ForCausalLM" for name in causal} | encoders


def test_the_shared_model(shared: Callable[[str], Path]) -> None:
    from tests.anatomy.tiny import opened

    config, shapes, _ = opened(shared("models/llama"))
    anatomy = find(config, shapes)
    assert anatomy.n_blocks == 6
    assert find({**config, "architectures": ["New"]}, shapes).restricted(anatomy.linears(0)).linears(0)
    assert all(f"{name}.weight" in shapes for i in range(6) for name in anatomy.linears(i))
