from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.anatomy.tiny import FAMILIES, opened, outputs, reference, save, tokens
from torch import nn

from subbyte.anatomy import find
from subbyte.errors import ArchitectureError, CheckpointError, NotFiniteError, UnknownNameError
from subbyte.modules import linear_names, materialise, release, replace_linear, skeleton, submodule


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llama", tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_materialised_skeleton_is_the_model(family: str, tmp_path: Path) -> None:
    config, shapes, read = opened(save(family, tmp_path))
    model: Any = skeleton(config, find(config, shapes))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    materialise(model, "", read)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    assert not any(parameter.is_meta for parameter in parameters.values())
    assert set(shapes) <= set(parameters), "module names are checkpoint names"
    x = tokens()
    with torch.no_grad():
        torch.testing.assert_close(outputs(model, x), outputs(reference(tmp_path), x), rtol=1e-4, atol=1e-5)


def test_materialise_reads_below_the_prefix_only(llama: Path) -> None:
    config, shapes, read = opened(llama)
    model = skeleton(config, find(config, shapes))
    asked: list[str] = []
    materialise(model, "model.layers.1", lambda name: asked.append(name) or read(name))  # type: ignore[func-returns-value]
    assert sorted(asked) == sorted(name for name in shapes if name.startswith("model.layers.1."))
    assert model.get_parameter("model.layers.0.mlp.up_proj.weight").is_meta
    release(model, "model.layers.1")
    assert all(parameter.is_meta for parameter in model.parameters())


def test_materialise_skips_what_something_else_replaces(llama: Path) -> None:
    config, shapes, read = opened(llama)
    model = skeleton(config, find(config, shapes))
    block = submodule(model, "model.layers.0")
    name = "model.layers.0.mlp.up_proj"
    materialise(block, "", read, origin="model.layers.0", skip=[name])
    assert block.get_parameter("mlp.up_proj.weight").is_meta
    assert not block.get_parameter("mlp.down_proj.weight").is_meta


def test_tied_parameters_stay_one(tmp_path: Path) -> None:
    config, shapes, read = opened(save("llama-biased", tmp_path))
    model = skeleton(config, find(config, shapes))
    for step in (lambda: materialise(model, "lm_head", read), lambda: release(model, "model.embed_tokens")):
        step()
        assert model.get_parameter("lm_head.weight") is model.get_parameter("model.embed_tokens.weight")
    assert model.get_parameter("lm_head.weight").is_meta


def test_weights_are_copies(llama: Path) -> None:
    config, shapes, read = opened(llama)
    source = {name: read(name).float() for name in shapes}
    model = skeleton(config, find(config, shapes))
    materialise(model, "model.norm", source.__getitem__)
    model.get_parameter("model.norm.weight").data.zero_()
    assert source["model.norm.weight"].abs().sum() > 0


def test_damaged_weights_are_named(llama: Path) -> None:
    config, shapes, read = opened(llama)
    name = "model.layers.0.mlp.up_proj.weight"
    for bad in (float("nan"), float("inf")):
        model = skeleton(config, find(config, shapes))
        with pytest.raises(NotFiniteError, match=name):
            materialise(
                model, "", lambda n, bad=bad: torch.where(torch.arange(64) == 3, bad, read(n)) if n == name else read(n)
            )
    with pytest.raises(CheckpointError, match=name):
        materialise(skeleton(config, find(config, shapes)), "", lambda n: read(n)[:-1] if n == name else read(n))


def test_a_quantization_config_is_ignored(llama: Path) -> None:
    config, shapes, _ = opened(llama)
    skeleton({**config, "quantization_config": {"quant_method": "compressed-tensors"}}, find(config, shapes))


@pytest.mark.parametrize("change", [{"model_type": "no-such-model"}, {"model_type": None}, {"hidden_size": "wide"}])
def test_models_that_transformers_does_not_build(llama: Path, change: dict[str, object]) -> None:
    config, shapes, _ = opened(llama)
    anatomy = find(config, shapes)
    with pytest.raises(ArchitectureError):
        skeleton({**config, **change}, anatomy)


def test_config_and_architecture_that_disagree(llama: Path) -> None:
    config, shapes, _ = opened(llama)
    with pytest.raises(ArchitectureError, match="names"):
        skeleton({**config, "model_type": "phi3", "pad_token_id": 0}, find(config, shapes))


def test_replace_linear_and_names() -> None:
    root = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    assert linear_names(root) == ["0", "1.0"]
    new = nn.Identity()
    replace_linear(root, "1.0", new)
    assert submodule(root, "1.0") is new
    assert submodule(root, "") is root
    for call in (lambda: replace_linear(root, "1.2", new), lambda: submodule(root, "x.y")):
        with pytest.raises(UnknownNameError):
            call()
