"""load: float and quantized folders run, quantized layers stay packed, and what cannot be loaded says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.checkpoint.tiny import distance, llama, logits, save_float, save_quantized  # noqa: E402

from subbyte.checkpoint import formats, load, write_json  # noqa: E402
from subbyte.errors import ArchitectureError, CheckpointError, DtypeError, SchemeError, SubbyteError  # noqa: E402
from subbyte.modules import QuantizedLinear  # noqa: E402

CT, NATIVE = formats.get("compressed-tensors"), formats.get("subbyte")


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"attention_bias": True, "mlp_bias": True}])
@pytest.mark.parametrize("form", [None, CT, NATIVE])
def test_gives_the_model_of_the_folder(tmp_path: Path, changes: dict[str, Any], form: formats.Format | None) -> None:
    model = llama(**changes)
    if form is None:
        save_float(tmp_path, model)
        expected = logits(model)
    else:
        expected = logits(save_quantized(tmp_path, model, form, lambda _: ("int4/g32/bf16", None)))
    loaded = load(tmp_path)
    assert distance(logits(loaded), expected) < 1e-5
    assert type(loaded) is type(model)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    tied = loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert tied == model.config.tie_word_embeddings
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))


@pytest.mark.parametrize(
    ("weights", "inputs"),
    [
        ("int2/g32/asym/bf16", None),
        ("int1/g32/f16", None),
        ("int4/tensor/asym/f32", None),
        ("int8/tensor/f32", "int8/tensor/static"),
    ],
)
def test_our_own_format_runs(tmp_path: Path, weights: str, inputs: str | None) -> None:
    expected = logits(save_quantized(tmp_path, llama(), NATIVE, lambda _: (weights, inputs)))
    assert distance(logits(load(tmp_path)), expected) < 1e-5


def test_codes_stay_packed(tmp_path: Path) -> None:
    model = llama()
    save_quantized(tmp_path, model, CT, lambda _: ("int4/g32/bf16", None))
    loaded = load(tmp_path)
    quantized = {name: module for name, module in loaded.named_modules() if isinstance(module, QuantizedLinear)}
    assert len(quantized) == 14
    assert not any("proj" in name for name, _ in loaded.named_parameters())
    for name, module in quantized.items():
        weights = model.get_submodule(name).weight.numel()
        assert module.nbytes == weights // 2 + weights // 32 * 2


def test_the_rest_has_the_dtype_that_was_asked_for(tmp_path: Path) -> None:
    expected = logits(save_quantized(tmp_path, llama(), CT, lambda _: ("int4/g32/bf16", None)))
    for dtype in ("bfloat16", torch.bfloat16):
        loaded = load(tmp_path, dtype=dtype)
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
        assert distance(logits(loaded), expected) < 3e-2
    with pytest.raises(DtypeError, match="float32, bfloat16, float16"):
        load(tmp_path, dtype="int8")


def test_generates_with_the_settings_of_the_folder(tmp_path: Path) -> None:
    save_quantized(tmp_path, llama(), CT, lambda _: ("int4/g32/bf16", None))
    write_json(tmp_path / "generation_config.json", {"max_new_tokens": 5, "eos_token_id": 96, "pad_token_id": 0})
    loaded: Any = load(tmp_path)
    assert loaded.generation_config.max_new_tokens == 5
    assert loaded.generate(torch.tensor([[1, 2, 3]]), do_sample=False).shape[1] <= 8


def _without(folder: Path, key: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.pop(key)
    write_json(folder / "config.json", config)


@pytest.mark.parametrize(("key", "error"), [("architectures", CheckpointError), ("model_type", ArchitectureError)])
def test_a_config_without_its_kind(tmp_path: Path, key: str, error: type[SubbyteError]) -> None:
    save_float(tmp_path, llama())
    _without(tmp_path, key)
    with pytest.raises(error):
        load(tmp_path)


def test_a_file_without_a_config(tmp_path: Path) -> None:
    save_float(tmp_path, llama())
    (tmp_path / "config.json").unlink()
    with pytest.raises(ArchitectureError):
        load(tmp_path / "model.safetensors")


def test_a_pair_of_schemes_that_no_kernel_runs(tmp_path: Path) -> None:
    save_quantized(tmp_path, llama(), CT, lambda _: ("int4/g32/bf16", "int8/token"))
    with pytest.raises(SchemeError, match=r"model\.layers\.0\."):
        load(tmp_path)
