"""Fine-tuning: floats learn, codes stay, and a run that is killed while it trains ends with the same bytes."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.pipeline.mini import MINI, TOKENS, digests
from tests.pipeline.test_resume import killed, stopped

import subbyte
from subbyte.checkpoint import Source, formats
from subbyte.errors import CalibrationError, RecipeError
from subbyte.pipeline import Progress
from subbyte.pipeline.finetune import learn
from subbyte.recipe import Recipe, Training
from subbyte.systems import gptq, quip_sharp, rtn, smoothquant, vptq
from subbyte.tensors import CodebookTensor, QuantizedTensor, Rotated, VectorTensor

SHORT = Training(epochs=2, rate=1e-3, other_rate=3e-3, batch=2)


VPTQ = vptq(centroids=16, kmeans_iterations=3, tune_iterations=0)


def codes(folder: Path) -> dict[str, np.ndarray]:
    source = Source.open(folder)
    form = formats.detect(source.config)
    assert form is not None
    found = {}
    for name in form.layers(source):
        weight = form.read(source, name).weight
        weight = weight.dense if isinstance(weight, Rotated) else weight
        assert isinstance(weight, QuantizedTensor | CodebookTensor | VectorTensor)
        found[name] = weight.main.words if isinstance(weight, VectorTensor) else weight.words
    return found


def divergence(folder: Path) -> float:
    """From the float model, on tokens that nobody trained on."""
    tokens = torch.from_numpy(np.random.default_rng(6).integers(2, 4096, (4, 32)))
    with torch.no_grad():
        exact, found = (torch.log_softmax(subbyte.load(path)(input_ids=tokens).logits, -1) for path in (MINI, folder))
    return float(torch.nn.functional.kl_div(found, exact, reduction="sum", log_target=True) / tokens.numel())


@pytest.mark.parametrize("where", ["tune_blocks", "tune_model"])
@pytest.mark.parametrize(
    ("recipe", "rate", "most"), [(VPTQ, 1e-3, 0.97), (quip_sharp(2), 5e-3, 0.995)], ids=["vptq", "quip_sharp"]
)
def test_floats_learn_and_codes_stay(recipe: Recipe, rate: float, most: float, where: str, tmp_path: Path) -> None:
    tokens = np.random.default_rng(5).integers(2, 4096, (12, 32))
    plain = subbyte.quantize(MINI, recipe, tmp_path / "plain", calibration=tokens)
    seen: list[Progress] = []
    tuned = replace(recipe, **{where: replace(SHORT, epochs=3, rate=rate)})
    result = subbyte.quantize(MINI, tuned, tmp_path / "tuned", calibration=tokens, progress=seen.append)
    assert result.bits_per_weight == plain.bits_per_weight
    assert divergence(tmp_path / "tuned") < most * divergence(tmp_path / "plain")
    said = [note for block in result.blocks for note in block.notes if "tuned" in note]
    assert len(said) == (1 if where == "tune_model" else len(result.blocks))
    assert ("tune" in [progress.stage for progress in seen]) == (where == "tune_model")
    first = "model.layers.0.self_attn.q_proj"  # later blocks are rounded on what training made of the earlier ones
    assert np.array_equal(codes(tmp_path / "tuned")[first], codes(tmp_path / "plain")[first])
    norms = [
        Source.open(tmp_path / name).read("model.layers.0.input_layernorm.weight").float()
        for name in ("plain", "tuned")
    ]
    assert not torch.equal(*norms)


@pytest.mark.parametrize("make", [gptq, rtn])
def test_scales_learn_too(make: type, tmp_path: Path) -> None:
    recipe = make(bits=2, group_size=64)
    for name, tuned in (("plain", recipe), ("tuned", replace(recipe, tune_model=replace(SHORT, rate=1e-4)))):
        subbyte.quantize(MINI, tuned, tmp_path / name, calibration=np.resize(TOKENS, (8, 32)))
    assert divergence(tmp_path / "tuned") < divergence(tmp_path / "plain")
    before, after = codes(tmp_path / "plain"), codes(tmp_path / "tuned")
    assert all(np.array_equal(words, after[name]) for name, words in before.items())


def test_blocks_of_a_float_stream_learn_each_on_its_own(tmp_path: Path) -> None:
    """What a block is rounded on is then the float model's, whatever became of the blocks before it."""
    recipe = replace(VPTQ, propagate="float", true_sequential=False)
    tokens = np.resize(TOKENS, (8, 32))
    subbyte.quantize(MINI, recipe, tmp_path / "plain", calibration=tokens)
    subbyte.quantize(MINI, replace(recipe, tune_blocks=SHORT), tmp_path / "tuned", calibration=tokens)
    before, after = codes(tmp_path / "plain"), codes(tmp_path / "tuned")
    assert all(np.array_equal(words, after[name]) for name, words in before.items())
    assert divergence(tmp_path / "tuned") < divergence(tmp_path / "plain")


def test_a_run_that_is_killed_while_it_trains_ends_the_same(tmp_path: Path) -> None:
    tuned = replace(VPTQ, tune_blocks=SHORT, tune_model=SHORT)
    subbyte.quantize(MINI, tuned, tmp_path / "whole", calibration=TOKENS)
    stopped(tuned, tmp_path / "out", after=2)
    assert killed(tmp_path, tuned, tmp_path / "out", "tune", 1) == -signal.SIGKILL
    assert killed(tmp_path, tuned, tmp_path / "out", "verify", 1) == -signal.SIGKILL  # all is written a second time
    subbyte.quantize(MINI, tuned, tmp_path / "out", calibration=TOKENS, resume=True)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert not (tmp_path / "out.partial").exists()


def test_the_best_state_is_kept() -> None:
    """The sequences held out decide: a rate that only does harm leaves everything as it was."""
    norm = torch.nn.LayerNorm(3)
    towards = torch.tensor([1.0] * 6 + [-1.0] * 2)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return (norm.bias - towards[rows, None]).square().mean()

    before, after = learn([norm], loss, 8, Training(epochs=4, other_rate=0.1, patience=2))
    assert before == after == 1
    assert not norm.bias.any()
    towards[:] = 1
    before, after = learn([norm], loss, 8, Training(epochs=4, other_rate=0.1))
    assert after < 0.8 * before
    assert norm.bias.min() > 0.1
    assert not any(parameter.requires_grad for parameter in norm.parameters())


def test_as_data_and_as_text() -> None:
    recipe = replace(gptq(), tune_blocks=SHORT, tune_model=Training())
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert Recipe.from_data({**recipe.to_data(), "tune_model": {"epochs": 3}}).tune_model == Training(epochs=3)
    for given, said in (({"epoch": 3}, "did you mean"), ({"epochs": 0}, "1 to 1000"), ({"held_out": 1.0}, "below 1")):
        with pytest.raises(RecipeError, match=said):
            Recipe.from_data({**recipe.to_data(), "tune_model": given})
    with pytest.raises(RecipeError, match="float activations"):
        replace(smoothquant(), tune_model=SHORT)


def test_too_few_sequences_are_refused(tmp_path: Path) -> None:
    for where in ("tune_blocks", "tune_model"):
        with pytest.raises(CalibrationError, match="at least 2"):
            subbyte.quantize(MINI, replace(VPTQ, **{where: SHORT}), tmp_path / where, calibration=TOKENS[:1])
        assert not (tmp_path / where).exists()
