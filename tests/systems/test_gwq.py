"""GWQ: its sheet's checks, the gradient by blocks against autograd over the whole model first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.anatomy import tiny
from tests.pipeline.mini import MINI, TOKENS
from tests.systems.quality import Quality

import subbyte
from subbyte import anatomy as anatomies
from subbyte.calibration import Statistics, Stream
from subbyte.checkpoint import Source, formats, load
from subbyte.errors import CalibrationError, ShapeError
from subbyte.modules import QuantizedLinear
from subbyte.outliers.gradient import locate
from subbyte.recipe import Recipe
from subbyte.schemes import Scheme
from subbyte.solvers import Apart, Nearest
from subbyte.systems import gwq, rtn
from subbyte.tensors import Decomposition, QuantizedLayer, QuantizedTensor

WINDOWS = torch.from_numpy(TOKENS[:3])
DRAW = np.random.default_rng(19)
WEIGHT = (DRAW.standard_t(4, (32, 128)) * 0.02).astype(np.float16).astype(np.float32)
PLACES = np.sort(DRAW.choice(WEIGHT.size, 41, replace=False))  # ceil(0.01 * 4096)
STATS = Statistics(tokens=0, apart=torch.from_numpy(PLACES))
MASK = np.isin(np.arange(WEIGHT.size), PLACES).reshape(WEIGHT.shape)
PLAIN, FINE = "int4/g32/asym/f16", "int3/g16/asym/float_zero/s3z3r16/f16"


def stream(folder: Path = MINI) -> Stream:
    source = Source.open(folder)
    found = anatomies.find(source.config, {name: source.shape(name) for name in source.names()})
    return Stream(source.config, found, source.read)


def losses(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=tokens, use_cache=False).logits
    return torch.stack(
        [torch.nn.functional.cross_entropy(row[:-1], one[1:]) for row, one in zip(logits, tokens, strict=True)]
    )


def monolithic(factor: float = 1.0) -> dict[str, list[torch.Tensor]]:
    """autograd's gradients of every linear of the blocks, one a sequence."""
    model = load(MINI)
    found: dict[str, list[torch.Tensor]] = {}
    weights = {n: m.weight for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "layers" in n}
    for weight in weights.values():
        weight.requires_grad_(True)
    for one in WINDOWS:
        loss = factor * losses(model, one[None])[0]
        for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
            found.setdefault(name, []).append(gradient)
    return found


def test_the_gradient_by_blocks_is_that_of_the_whole_model() -> None:
    model, whole = stream(), monolithic()
    hidden = model.embed(WINDOWS)
    inputs = []
    for i in range(model.anatomy.n_blocks):
        inputs.append(hidden)
        hidden = model.block(i).forward(hidden)
    loss, upstream = model.loss(hidden, WINDOWS)
    torch.testing.assert_close(loss, losses(load(MINI), WINDOWS), rtol=1e-5, atol=1e-6)
    seen = set()
    for i in reversed(range(model.anatomy.n_blocks)):
        block = model.block(i)
        for n in range(len(WINDOWS)):
            gradients, upstream[n : n + 1] = block.backward(inputs[i][n : n + 1], upstream[n : n + 1])
            for name, gradient in gradients.items():
                torch.testing.assert_close(gradient, whole[name][n], rtol=1e-4, atol=1e-6)
            seen |= set(gradients)
        assert not any(parameter.requires_grad for parameter in block.parameters().values())
    assert seen == set(whole)


REDUCE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean_abs": lambda g: g.abs().mean(0),
    "abs_mean": lambda g: g.mean(0).abs(),
    "square": lambda g: g.square().mean(0),
}


@pytest.mark.parametrize("reduce", REDUCE)
@pytest.mark.parametrize("score", ["gradient", "gradient_weight"])
def test_the_places_are_those_of_the_largest_scores(reduce: Any, score: Any) -> None:
    """Scaling the loss leaves them as they are."""
    whole, source = monolithic(factor=64.0), Source.open(MINI)
    places = locate(stream(), WINDOWS, set(whole), 0.01, score, reduce)
    assert set(places) == set(whole)
    for name, gradients in whole.items():
        expected = REDUCE[reduce](torch.stack(gradients))
        if score == "gradient_weight":
            expected = expected * source.read(f"{name}.weight").float().abs()
        count = -(-expected.numel() // 100)
        assert len(places[name]) == count
        best = set(expected.flatten().topk(count).indices.tolist())
        assert len(best - set(places[name].tolist())) <= 1  # two scores that f32 cannot tell apart


def test_an_expert_without_tokens_has_no_places(tmp_path: Path) -> None:
    model = stream(tiny.save("mixtral", tmp_path))
    names = [name for i in range(model.anatomy.n_blocks) for name in model.anatomy.linears(i)]
    places = locate(model, torch.full((1, 2), 3), names, 0.05)  # two tokens cannot reach all experts twice
    assert set(places) == set(names)
    assert any(len(found) == 0 for found in places.values())
    solved = Apart().solve(WEIGHT, Scheme.parse(PLAIN), Statistics(tokens=0, apart=torch.zeros(0, dtype=torch.int64)))
    assert "no gradient" in solved.note
    kept = np.abs(WEIGHT)[solved.tensor.sparse.dense() != 0]  # type: ignore[union-attr]
    assert kept.min() >= np.sort(np.abs(WEIGHT).reshape(-1))[-41]


def test_one_token_predicts_nothing() -> None:
    with pytest.raises(CalibrationError, match="at least 2 tokens"):
        locate(stream(), torch.full((1, 1), 3), [], 0.01)


@pytest.mark.parametrize("scheme", [PLAIN, "int3/g32/f16", FINE, "int4/g16/asym/float_zero/s3z3r16/f16"])
def test_outliers_come_back_and_leave_the_ranges_of_the_others(scheme: str) -> None:
    parsed = Scheme.parse(scheme)
    tensor = Apart().solve(WEIGHT, parsed, STATS).tensor
    assert isinstance(tensor, Decomposition)
    assert len(tensor.sparse.values) == 41  # type: ignore[union-attr]
    missed = np.abs(tensor.dequantize() - WEIGHT)
    if parsed.float_zero:
        assert (missed[MASK] <= np.spacing(np.abs(WEIGHT[MASK]).astype(np.float16)).astype(np.float32)).all()
        return
    np.testing.assert_array_equal(tensor.dequantize()[MASK], WEIGHT[MASK])
    np.testing.assert_array_equal(tensor.dense.dequantize()[MASK], 0)
    scale = np.repeat(tensor.dense.scales(), 32, axis=1)
    # Half a step; a scale that f16 rounds down moves the end of a range by up to 2^b of its roundings.
    assert (missed[~MASK] <= (scale * (0.5 + 16 * 2.0**-11))[~MASK] + 1e-6).all()
    assert (tensor.dense.scales() <= Nearest().solve(WEIGHT, parsed).tensor.scales()).all()  # type: ignore[union-attr]


def test_nothing_kept_is_rounding_to_nearest_and_everything_is_the_weight() -> None:
    parsed = Scheme.parse(PLAIN)
    none = Apart(share=0).solve(WEIGHT, parsed, Statistics(tokens=0))
    assert isinstance(none.tensor, QuantizedTensor)
    assert not none.note
    np.testing.assert_array_equal(none.tensor.codes(), Nearest().solve(WEIGHT, parsed).tensor.codes())
    every = Statistics(tokens=0, apart=torch.arange(WEIGHT.size))
    np.testing.assert_array_equal(Apart(share=1).solve(WEIGHT, parsed, every).tensor.dequantize(), WEIGHT)


def test_places_that_do_not_fit_are_refused() -> None:
    for places in (torch.arange(40), torch.arange(41) + WEIGHT.size, torch.arange(41) - 1):
        with pytest.raises(ShapeError, match="places apart"):
            Apart().solve(WEIGHT, Scheme.parse(PLAIN), Statistics(tokens=0, apart=places))


@pytest.mark.parametrize("scheme", [PLAIN, FINE])
def test_a_layer_computes_the_sum_of_its_parts(scheme: str) -> None:
    tensor = Apart().solve(WEIGHT, Scheme.parse(scheme), STATS).tensor
    x = torch.from_numpy(DRAW.standard_normal((5, 128)).astype(np.float32))
    expected = x.double() @ torch.from_numpy(tensor.dequantize()).double().T
    found = QuantizedLinear(QuantizedLayer(tensor))(x.half())
    assert float((found.double() - expected).norm() / expected.norm()) < 2e-3


def test_a_model_is_written_with_what_its_gradient_located(tmp_path: Path) -> None:
    recipe = gwq(bits=3, samples=3)
    result = subbyte.quantize(MINI, recipe, tmp_path / "out", calibration=TOKENS)
    assert result.verified is not None
    assert result.verified < 1e-3
    source = Source.open(tmp_path / "out")
    form = formats.detect(source.config)
    assert form is not None
    names = form.layers(source)
    places = locate(stream(), WINDOWS, names, 0.01)
    for name in names:
        weight = form.read(source, name).weight
        assert isinstance(weight, Decomposition)
        assert weight.sparse is not None
        rows = np.repeat(np.arange(weight.shape[0]), np.diff(weight.sparse.pointers))
        flat = rows * weight.shape[1] + weight.sparse.columns
        np.testing.assert_array_equal(flat, places[name].numpy())
    plain = subbyte.quantize(MINI, rtn(bits=3, group_size=128), tmp_path / "plain", calibration=TOKENS)
    assert result.error < plain.error


def test_the_reference_configurations() -> None:
    for options, scheme in [
        ({}, "int4/g128/asym"),
        ({"fine": True}, "int4/g16/asym/float_zero/s3z3r16/f16"),
        ({"bits": 3, "fine": True}, FINE),
        ({"bits": 3}, "int3/g128/asym"),
    ]:
        recipe = gwq(**options)  # type: ignore[arg-type]
        assert str(recipe.weights) == scheme
        assert recipe.solver == Apart(0.01, 8)
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe
        assert recipe.wanted == {"apart"}


def perturbed(model: Any, name: str, places: torch.Tensor, noise: torch.Tensor, tokens: torch.Tensor) -> float:
    """By how much a small change of some weights moves the loss."""
    weight = model.get_submodule(name).weight
    before = weight.detach().clone()
    with torch.no_grad():
        start = float(losses(model, tokens).mean())
        weight.view(-1)[places] += noise
        moved = float(losses(model, tokens).mean()) - start
        weight.copy_(before)
    return abs(moved)


def test_the_loss_depends_most_on_the_located_weights(llama: Quality) -> None:
    """First-order effect, averaged over 20 draws of the same size on the mask and on as many others."""
    model = load(llama.folder)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 4096, (1, 8)))
    tokens = torch.cat([tokens, llama._tokens[0][:1, :120]], dim=1)
    name = "model.layers.2.mlp.up_proj"
    places = locate(stream(llama.folder), tokens, [name], 0.01)[name]
    generator = torch.Generator().manual_seed(1)
    located = others = 0.0
    for _ in range(20):
        noise = 0.01 * torch.randn(len(places), generator=generator)
        elsewhere = torch.randperm(model.get_submodule(name).weight.numel(), generator=generator)[: len(places)]
        located += perturbed(model, name, places, noise, tokens)
        others += perturbed(model, name, elsewhere, noise, tokens)
    assert located > 3 * others


def test_beats_rounding_to_nearest(llama: Quality) -> None:
    """Three bits, one weight in a hundred kept. At four bits both are within noise of the float model."""
    assert llama.loss(gwq(bits=3), 16) < llama.loss(rtn(bits=3, group_size=128))
