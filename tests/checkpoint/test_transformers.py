"""transformers with compressed-tensors loads what we write, and gives the logits of our dequantized weights.

A folder that it does not understand loads too, with random weights and a line in the log: so logits are compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("compressed_tensors")
transformers = pytest.importorskip("transformers")

from tests.checkpoint.tiny import distance, llama, logits, save_quantized  # noqa: E402

from subbyte.checkpoint import formats, load  # noqa: E402
from subbyte.modules import QuantizedLinear  # noqa: E402

CT = formats.get("compressed-tensors")


@pytest.fixture(scope="module")
def model() -> Any:
    return llama()


def theirs(folder: Path) -> Any:
    found, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values()), info
    return found


@pytest.mark.parametrize("asym", ["", "/asym"])
@pytest.mark.parametrize(
    ("bits", "where"), [*((bits, "g32") for bits in range(2, 9)), *((bits, "channel") for bits in (3, 4, 8))]
)
def test_weights(tmp_path: Path, model: Any, bits: int, where: str, asym: str) -> None:
    expected = logits(save_quantized(tmp_path, model, CT, lambda _: (f"int{bits}/{where}{asym}/bf16", None)))
    # Symmetric weights come out exact; beside packed zero points each is rounded to f16 (compressed_tensors.py).
    bound = 5e-4 if asym else 2e-5
    assert distance(logits(theirs(tmp_path)), expected) < bound
    assert distance(logits(load(tmp_path)), expected) < 2e-5


def own_noise(model: Any) -> float:
    """How far a model's logits move when the inputs of its first block move by one part in ten million."""
    exact = logits(model)
    handle = model.model.layers[0].register_forward_pre_hook(lambda _, args: (args[0] * (1 + 1e-7), *args[1:]))
    try:
        return distance(logits(model), exact)
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("weights", "inputs"),
    [
        ("int8/channel/bf16", "int8/tensor/static"),
        ("int8/tensor/bf16", "int8/tensor/static"),
        ("int4/channel/bf16", "int8/tensor/static"),
        ("int8/channel/bf16", "int8/token"),
        ("int8/tensor/bf16", "int8/token"),
        ("int4/channel/bf16", "int8/token"),
        ("int8/channel/bf16", "int8/tensor"),
    ],
)
def test_weights_and_inputs(tmp_path: Path, model: Any, weights: str, inputs: str) -> None:
    # Layer by layer, on equal inputs, nothing but the order of the sums differs. Through the model the last bit of an
    # input can decide between two codes (with scales found while running the largest of a token lies on a tie by
    # construction: max / (max / 127.5) is 127.5), and every code that differs moves others: there two right programs
    # agree as closely as one of them agrees with itself when its inputs move by their last bit.
    expected = logits(save_quantized(tmp_path, model, CT, lambda _: (weights, inputs)))
    one, other = theirs(tmp_path), load(tmp_path)
    bound = 2e-5 if inputs.endswith("static") else max(1e-3, 3 * own_noise(one))
    assert distance(logits(one), expected) < bound
    assert distance(logits(other), expected) < bound
    draw = torch.Generator().manual_seed(2)
    for name, linear in other.named_modules():
        if isinstance(linear, QuantizedLinear):
            x = torch.randn(1, 7, linear.in_features, generator=draw)
            assert distance(linear(x), one.get_submodule(name)(x)) < 2e-6


def test_several_schemes(tmp_path: Path, model: Any) -> None:
    def schemes(name: str) -> tuple[str, str | None]:
        if "mlp.down_proj" in name:
            return "int8/channel/bf16", "int8/tensor/static"
        return ("int3/g32/bf16" if "layers.1.mlp" in name else "int4/g64/bf16"), None

    expected = logits(save_quantized(tmp_path, model, CT, schemes))
    assert distance(logits(theirs(tmp_path)), expected) < 2e-5
    assert distance(logits(load(tmp_path)), expected) < 2e-5


def test_experts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = transformers.MixtralConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=97, num_local_experts=4,
    )  # fmt: skip
    transformers.MixtralForCausalLM(settings).to(torch.bfloat16).save_pretrained(tmp_path / "float")
    unfused = load(tmp_path / "float")
    router = "model.layers.0.block_sparse_moe.gate"

    def schemes(name: str) -> tuple[str, str | None]:
        return ("int3/g64/bf16" if ".experts." in name else "int4/channel/bf16"), None

    for assign in (schemes, lambda _: ("int4/g32/bf16", None)):
        expected = logits(save_quantized(tmp_path / "out", unfused, CT, assign, keep=("lm_head", router)))
        assert distance(logits(theirs(tmp_path / "out")), expected) < 5e-4
        assert distance(logits(load(tmp_path / "out")), expected) < 2e-5


def test_what_it_loads_by_default_is_near(tmp_path: Path, model: Any) -> None:
    expected = logits(save_quantized(tmp_path, model, CT, lambda _: ("int4/g32/asym/bf16", None)))
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert found.dtype == torch.bfloat16
    assert distance(logits(found), expected) < 3e-2


def test_our_own_format_is_not_mistaken_for_a_float_model(tmp_path: Path, model: Any) -> None:
    save_quantized(tmp_path, model, formats.get("subbyte"), lambda _: ("int4/g32/bf16", None))
    with pytest.raises(OSError, match=r"model\.safetensors"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
