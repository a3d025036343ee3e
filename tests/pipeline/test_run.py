"""The pipeline on the embedded model: what it writes, says and refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.anatomy import tiny
from tests.pipeline.mini import MINI, TOKENS, copied, digests, with_config, with_value

import subbyte
from subbyte.checkpoint import Source, formats, load
from subbyte.errors import (
    ArchitectureError,
    CalibrationError,
    CheckpointError,
    NotFiniteError,
    OutputError,
    RecipeError,
    SchemeError,
    ShapeError,
    SubbyteError,
    UnknownNameError,
)
from subbyte.pipeline import Progress, Result, quantize
from subbyte.pipeline import run as run_module
from subbyte.recipe import Recipe
from subbyte.schemes import Scheme
from subbyte.solvers import Gptq
from subbyte.systems import awq, gptq, rtn, smoothquant

GROUP = 32


def logits(model: Any, tokens: np.ndarray = TOKENS) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.from_numpy(tokens), use_cache=False).logits
    return found.float()


def dequantized(folder: Path, original: Path) -> Any:
    """The float model of `original` with everything that `folder` holds put into it, weights dequantized."""
    model = load(original)
    source = Source.open(folder)
    form = formats.detect(source.config)
    assert form is not None
    quantized = form.layers(source)
    for name in quantized:
        weight = torch.from_numpy(form.read(source, name).weight.dequantize())
        model.get_submodule(name).weight.data.copy_(weight)
    for name, parameter in model.named_parameters():
        if name.removesuffix(".weight") not in quantized:
            parameter.data.copy_(source.read(name))
    return model


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


# What it writes


def test_writes_what_was_asked_for_and_says_how_it_goes(tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = quantize(MINI, gptq(bits=4, group_size=GROUP), tmp_path / "out", calibration=TOKENS, progress=seen.append)
    assert isinstance(result, Result)
    assert [progress.stage for progress in seen] == [
        "plan",
        "block",
        "block",
        "block",
        "block",
        "rest",
        "verify",
        "done",
    ]
    plan = seen[0].plan
    assert plan is not None
    assert (plan.blocks, plan.linears, plan.tokens, plan.format) == (4, 28, TOKENS.size, "compressed-tensors")
    assert plan.peak_bytes > 1 << 20
    assert plan.seconds > 0
    assert "GiB" in str(plan)
    for number, progress in enumerate(seen[1:5], start=1):
        assert (progress.done, progress.total) == (number, 4)
        assert progress.error is not None
        assert 0 < progress.error < 1
        assert progress.block is not None
        assert len(progress.block.layers) == 7
    assert seen[4].eta == 0 <= seen[1].eta
    assert result.verified is not None
    assert result.verified < 1e-4
    assert 4 < result.bits_per_weight < 5
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors.index.json"} <= names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    # what runs on codes is what the dequantized weights give, and neither is the float model
    expected = logits(dequantized(tmp_path / "out", MINI))
    assert relative(logits(load(tmp_path / "out")), expected) < 1e-4
    assert relative(logits(load(MINI)), expected) > 1e-2


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog, and goes on to do so again and again. " * 60)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = {"calibration": text, "samples": 4, "seq_len": 32, "seed": seed}
        quantize(MINI, gptq(bits=3, group_size=GROUP), tmp_path / name, **options)  # type: ignore[call-overload]
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != digests(tmp_path / "c")


def test_kept_modules_and_schemes_of_their_own(tmp_path: Path) -> None:
    eight = Scheme.parse("int8/channel")
    overrides = (("model.layers.0.*", "keep"), ("*.down_proj", eight))
    recipe = replace(rtn(bits=4, group_size=GROUP), overrides=overrides)
    quantize(MINI, recipe, tmp_path / "out")
    source, original = Source.open(tmp_path / "out"), Source.open(MINI)
    form = formats.detect(source.config)
    assert form is not None
    layers = form.layers(source)
    assert len(layers) == 21
    assert form.read(source, "model.layers.3.mlp.down_proj").weight.scheme.bits == 8
    for name in original.names():
        if name.removesuffix(".weight") not in layers:
            np.testing.assert_array_equal(source.array(name), original.array(name))
    assert relative(logits(load(tmp_path / "out")), logits(dequantized(tmp_path / "out", MINI))) < 1e-4


@pytest.mark.parametrize("family", ["llama-biased", "llama-mha", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3"])
def test_families_transform_and_run(family: str, tmp_path: Path) -> None:
    """Tied embeddings, biases, grouped queries, norm offsets, joined projections: read back, and run on codes."""
    folder = tiny.save(family, tmp_path / family)
    tokens = tiny.tokens(3, 16)
    recipe = awq(bits=8, group_size=-1, grid=4, grouped=True)
    result = quantize(folder, recipe, tmp_path / "out", calibration=tokens)
    assert result.verified is not None
    assert result.verified < 1e-4
    expected = logits(tiny.reference(folder), tokens.numpy())
    assert relative(logits(load(tmp_path / "out"), tokens.numpy()), expected) < 0.1


@pytest.mark.parametrize("family", ["opt", "mixtral", "stablelm"])
@pytest.mark.parametrize("name", ["gptq", "smoothquant"])
def test_other_architectures(family: str, name: str, tmp_path: Path) -> None:
    folder = tiny.save(family, tmp_path / family)
    tokens = tiny.tokens(3, 16)
    recipe = gptq(bits=8, group_size=-1) if name == "gptq" else smoothquant(level="O1")
    notes: list[str] = []
    result = quantize(
        folder,
        recipe,
        tmp_path / "out",
        calibration=tokens,
        progress=lambda p: notes.extend(p.plan.notes if p.plan else ()),
    )
    assert result.verified is not None
    assert bool(notes) == (family == "stablelm"), notes
    expected = logits(tiny.reference(folder), tokens.numpy())
    assert relative(logits(load(tmp_path / "out"), tokens.numpy()), expected) < 0.1


def test_an_expert_without_tokens_is_rounded_to_nearest_and_named(tmp_path: Path) -> None:
    folder = tiny.save("mixtral", tmp_path / "mixtral")
    tokens = torch.zeros(1, 2, dtype=torch.int64)  # two tokens reach four of eight experts at most
    result = quantize(folder, gptq(bits=4, group_size=32), tmp_path / "out", calibration=tokens)
    silent = [layer for block in result.blocks for layer in block.layers if layer.note]
    assert silent
    assert all("no calibration tokens" in layer.note for layer in silent)
    assert result.verified is not None


def test_act_order_with_dynamic_groups_needs_our_own_format(tmp_path: Path) -> None:
    recipe = replace(gptq(bits=4, group_size=GROUP), solver=Gptq(act_order=True, static_groups=False))
    result = quantize(MINI, recipe, tmp_path / "out", calibration=TOKENS)
    assert result.format == "subbyte"
    source = Source.open(tmp_path / "out")
    indexed = [name for name in source.names() if name.endswith("weight_index")]
    assert indexed
    assert relative(logits(load(tmp_path / "out")), logits(dequantized(tmp_path / "out", MINI))) < 1e-4
    with pytest.raises(SchemeError, match="act-order"):
        quantize(MINI, recipe, tmp_path / "other", calibration=TOKENS, format="compressed-tensors")


def test_a_model_in_memory_and_no_folder() -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(MINI, dtype=torch.float32)
    quantized = quantize(model, rtn(bits=8, group_size=-1))
    assert isinstance(quantized, torch.nn.Module)
    assert 0 < relative(logits(quantized), logits(model)) < 0.05
    with pytest.raises(ArchitectureError, match="Linear"):
        quantize(torch.nn.Linear(2, 2), rtn())


def test_gptq_calibrates_on_the_quantized_model_and_awq_on_the_float_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs: dict[str, list[torch.Tensor]] = {}
    original = run_module.round_block
    for name, recipe in (("gptq", gptq(bits=2, group_size=GROUP)), ("awq", awq(bits=2, group_size=GROUP, grid=2))):
        inputs[name] = []

        def watched(job: Any, i: int, block: Any, hidden: Any, *others: Any, name: str = name) -> Any:
            inputs[name].append(hidden.clone())
            return original(job, i, block, hidden, *others)

        monkeypatch.setattr(run_module, "round_block", watched)
        quantize(MINI, recipe, tmp_path / name, calibration=TOKENS, verify=False)
    float_model = load(MINI)
    caught: list[torch.Tensor] = []
    for layer in float_model.model.layers:
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: caught.append((args or [kwargs["hidden_states"]])[0]), with_kwargs=True
        )
    logits(float_model)
    for i in range(4):
        assert relative(inputs["awq"][i], caught[i]) < 1e-5
    assert relative(inputs["gptq"][0], caught[0]) < 1e-5
    assert relative(inputs["gptq"][1], caught[1]) > 1e-3
    caught.clear()
    quantized = dequantized(tmp_path / "gptq", MINI)
    for layer in quantized.model.layers:
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: caught.append((args or [kwargs["hidden_states"]])[0]), with_kwargs=True
        )
    logits(quantized)
    for i in range(4):
        assert relative(inputs["gptq"][i], caught[i]) < 1e-5


# What it refuses: by name, and before anything is written


def nothing_beside(tmp_path: Path, *names: str) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        (with_value("model.layers.2.mlp.up_proj.weight", 0x7FC0), NotFiniteError, "model.layers.2.mlp.up_proj.weight"),
        (with_value("model.layers.0.self_attn.q_proj.weight", 0xFF80), NotFiniteError, "layers.0.self_attn.q_proj"),
        (with_value("model.embed_tokens.weight", 0x7F80), NotFiniteError, "model.embed_tokens.weight"),
        (with_config(architectures=None), CheckpointError, "architectures"),
        (with_config(quantization_config={"quant_method": "gptq"}), CheckpointError, "quantized already"),
        (with_config(num_hidden_layers=9), ArchitectureError, "layers.4"),
        (lambda folder: (folder / "config.json").unlink(), CheckpointError, "config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), CheckpointError, "safetensors"),
    ],
)
def test_damaged_models(change: Callable[[Path], None], error: type[SubbyteError], named: str, tmp_path: Path) -> None:
    model = copied(tmp_path / "model", change)
    with pytest.raises(error, match=named.replace(".", r"\.")):
        quantize(model, gptq(bits=4, group_size=GROUP), tmp_path / "out", calibration=TOKENS)
    nothing_beside(tmp_path, "model")


def test_a_truncated_file(tmp_path: Path) -> None:
    model = copied(tmp_path / "model")
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        quantize(model, rtn(bits=4, group_size=GROUP), tmp_path / "out")
    nothing_beside(tmp_path, "model")


@pytest.mark.parametrize(
    ("recipe", "options", "error", "named"),
    [
        (rtn(group_size=96), {}, ShapeError, "group size of model.layers.0.self_attn.q_proj"),
        (rtn(group_size=GROUP), {"format": "compresed-tensors"}, UnknownNameError, "compressed-tensors"),
        (rtn(bits=1, group_size=GROUP), {"format": "compressed-tensors"}, SchemeError, "2 to 8 bits"),
        (gptq(), {"calibration": np.zeros((0, 8), np.int64)}, CalibrationError, "at least one"),
        (gptq(), {"calibration": np.zeros((2, 8), np.float32)}, CalibrationError, "integer tokens"),
        (gptq(), {"calibration": np.full((2, 8), 4096)}, CalibrationError, "4096"),
        (gptq(), {"calibration": "absent.txt"}, CalibrationError, "absent.txt"),
        (gptq(), {"calibration": np.array([[3]]), "samples": 0}, None, ""),
        (replace(rtn(), ignore=("*",)), {}, RecipeError, "every linear kept"),
        (replace(rtn(group_size=-1), activations=Scheme.parse("int8/token")), {}, SchemeError, "symmetric"),
        ("gptq", {}, RecipeError, "gptq"),
    ],
)
def test_bad_arguments(
    recipe: Recipe, options: dict[str, Any], error: type[SubbyteError] | None, named: str, tmp_path: Path
) -> None:
    if error is None:  # `samples` is for text: given tokens are taken as they are
        quantize(MINI, recipe, tmp_path / "out", **options)
        return
    with pytest.raises(error) as raised:
        quantize(MINI, recipe, tmp_path / "out", **options)
    assert named in str(raised.value)
    nothing_beside(tmp_path)


def test_a_text_shorter_than_one_window(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "empty.txt").write_text("")
    for name in ("short.txt", "empty.txt"):
        with pytest.raises(CalibrationError, match=name):
            quantize(MINI, gptq(group_size=GROUP), tmp_path / "out", calibration=tmp_path / name)
    nothing_beside(tmp_path, "short.txt", "empty.txt")


def test_an_output_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("file", "full"):
        with pytest.raises(OutputError, match=name):
            quantize(MINI, rtn(group_size=GROUP), tmp_path / name)
    quantize(MINI, rtn(group_size=GROUP), tmp_path / "empty")
    assert (tmp_path / "empty" / "config.json").is_file()
    with pytest.raises(OutputError, match="absent"):
        quantize(MINI, rtn(group_size=GROUP), tmp_path / "file" / "absent" / "out")
    nothing_beside(tmp_path, "file", "full", "empty")


def test_a_channel_that_never_is_active_and_rows_of_zeros(tmp_path: Path) -> None:
    def zero(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.0.input_layernorm.weight"][:5] = 0  # five dead input channels of q, k, v
        tensors["model.layers.0.mlp.up_proj.weight"][:3] = 0  # three dead input channels of down
        tensors["model.layers.1.self_attn.v_proj.weight"][:] = 0  # all of the output projection's Hessian is zero
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    model = copied(tmp_path / "model", zero)
    for recipe in (gptq(bits=4, group_size=GROUP), awq(bits=4, group_size=GROUP, grid=3), smoothquant()):
        result = quantize(model, recipe, tmp_path / recipe.name, calibration=TOKENS)
        assert result.verified is not None
        assert np.isfinite(logits(load(tmp_path / recipe.name)).numpy()).all()
    source = Source.open(tmp_path / "gptq")
    form = formats.detect(source.config)
    assert form is not None
    assert (form.read(source, "model.layers.0.self_attn.q_proj").weight.dequantize()[:, :5] == 0).all()
    assert (form.read(source, "model.layers.1.self_attn.o_proj").weight.dequantize() == 0).all()


def test_verification_catches_a_file_that_was_not_what_was_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = formats.CompressedTensors.tensors

    def wrong(self: Any, name: str, layer: Any, dtype: str) -> Any:
        tensors = original(self, name, layer, dtype)
        if name == "model.layers.2.mlp.down_proj":
            tensors[f"{name}.weight_packed"].data[:] ^= 0x55555555
        return tensors

    monkeypatch.setattr(formats.CompressedTensors, "tensors", wrong)
    with pytest.raises(CheckpointError, match="logits that differ"):
        quantize(MINI, rtn(bits=2, group_size=GROUP), tmp_path / "out")
    nothing_beside(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if not made or made.returncode:
        pytest.skip("no right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_no_space_left(small_disk: Path) -> None:
    with pytest.raises(OutputError, match=r"[Nn]o space") as raised:
        quantize(MINI, rtn(bits=8, group_size=GROUP), small_disk / "out")
    assert not (small_disk / "out").exists()
    assert not list(small_disk.rglob("*.tmp"))
    kept = small_disk / "out.partial"
    assert kept.exists()
    assert "--resume" in str(raised.value)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    quantize(MINI, rtn(bits=8, group_size=GROUP), small_disk / "out", resume=True)
    quantize(MINI, rtn(bits=8, group_size=GROUP), small_disk / "again")
    assert digests(small_disk / "out") == digests(small_disk / "again")


def test_reached_as_subbyte_quantize() -> None:
    assert subbyte.quantize is quantize
    assert json.loads((MINI / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
