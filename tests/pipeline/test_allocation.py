"""Bits by sensitivity: the choice against all choices there are, the costs against autograd, whole runs on the embedded
model."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.anatomy import tiny
from tests.pipeline.mini import MINI, TOKENS, digests
from tests.pipeline.test_resume import killed

import subbyte
from subbyte.calibration import Statistics
from subbyte.checkpoint import Source, formats, load
from subbyte.errors import RecipeError, ShapeError
from subbyte.evaluate import checkpoint_size
from subbyte.pipeline.allocation import allotted, choose, costs, left_by_feedback
from subbyte.pipeline.job import prepare
from subbyte.pipeline.plan import plan
from subbyte.recipe import Allocation, Recipe
from subbyte.schemes import Scheme
from subbyte.solvers import Nearest
from subbyte.systems import best, gptq, rtn

LOW, OWN, HIGH = (Scheme.parse(f"int{bits}/g64/asym") for bits in (3, 4, 5))
PLAIN = rtn(bits=4, group_size=64)
MIXED = replace(PLAIN, allocate=Allocation((LOW, HIGH), sequences=3))
WINDOWS = torch.from_numpy(TOKENS)
Options = Sequence[Sequence[tuple[float, float]]]


# The choice


def total(options: Options, chosen: Sequence[int], part: int) -> float:
    return sum(each[k][part] for each, k in zip(options, chosen, strict=True))


def exhaustive(options: Options, budget: float) -> float:
    """What the best of all choices that fit costs."""
    every = itertools.product(*(range(len(each)) for each in options))
    return min(total(options, chosen, 1) for chosen in every if total(options, chosen, 0) <= budget)


unit = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 40)), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(unit, min_size=1, max_size=5))
def test_keeps_the_budget_and_loses_at_most_a_step(options: list[list[tuple[int, int]]]) -> None:
    budget, first = total(options, [0] * len(options), 0), total(options, [0] * len(options), 1)
    chosen = choose(options, budget)
    spent, cost = total(options, chosen, 0), total(options, chosen, 1)
    assert spent <= budget
    assert exhaustive(options, budget) <= cost <= first
    longest = max(max(size for size, _ in each) - min(size for size, _ in each) for each in options)
    if budget - spent >= longest and cost < first:  # room for any step: there was none that gains
        assert cost == exhaustive(options, float("inf"))


def test_is_the_best_choice_where_the_budget_ends_on_a_step() -> None:
    """Costs that fall to a quarter with each bit."""
    for seed in range(20):
        weights = 4.0 ** np.random.default_rng(seed).integers(0, 4, 5)
        options = [[(float(b), float(w) * 4.0**-b) for b in (4, 2, 3, 5, 6)] for w in weights]
        chosen = choose(options, 20.0)
        assert total(options, chosen, 0) == 20.0
        assert total(options, chosen, 1) == pytest.approx(exhaustive(options, 20.0), rel=1e-12)


def test_skips_what_is_not_on_the_hull() -> None:
    options = [[(4.0, 8.0), (1.0, 10.0), (3.0, 9.9), (6.0, 1.0), (7.0, 1.5)], [(4.0, 5.0), (2.0, 5.1)]]
    assert choose(options, 8.0) == [3, 1]
    assert choose([[(4.0, 1.0)]], 4.0) == [0]


# The costs


def test_are_squares_of_gradients_times_squares_of_errors() -> None:
    """Against autograd over the whole model, labels drawn from its predictions by the same generator."""
    model, windows = load(MINI), WINDOWS[:2]
    names = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "layers" in n]
    weights = [model.get_submodule(name).weight.requires_grad_(True) for name in names]
    drawn, squares = torch.Generator().manual_seed(4), [torch.zeros_like(weight) for weight in weights]
    for one in windows:
        logits = model(input_ids=one[None], use_cache=False).logits[0, :-1]
        labels = torch.multinomial(logits.detach().softmax(-1), 1, generator=drawn)[:, 0]
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        for square, gradient in zip(squares, torch.autograd.grad(loss, weights), strict=True):
            square += gradient.square() / len(labels) / len(windows)
    found = costs(prepare(MINI, MIXED, "auto"), windows, seed=4)
    vectors = replace(best(4), allocate=Allocation((Scheme.parse("v2k32/tensor/f16"),)))
    coded = costs(prepare(MINI, vectors, "auto"), windows, seed=4)
    assert set(found) == set(coded) == set(names)
    for name, weight, square in zip(names, weights, squares, strict=True):
        exact = weight.detach().numpy()
        errors = [Nearest().solve(exact, s.resolve("bf16")).tensor.dequantize() - exact for s in (OWN, LOW, HIGH)]
        expected = [float((square.numpy() * error**2).sum()) / 2 for error in errors]
        assert found[name] == pytest.approx(expected, rel=2e-3)
        whole = float((square.numpy() * exact**2).sum()) / 2
        share = coded[name][0] / (whole * 4.0**-4)  # what feedback leaves
        assert 0 < share < 1
        assert coded[name][1] == pytest.approx(share * whole * 4.0**-2.5, rel=2e-3)


def test_feedback_leaves_what_no_other_input_explains() -> None:
    draw = np.random.default_rng(2).standard_normal((500, 6))
    draw[:, 3] = draw[:, 1] + 0.1 * draw[:, 3]
    draw[:, 5] = 0.0

    def left(inputs: np.ndarray) -> float:
        return left_by_feedback(Statistics(len(inputs), gram=torch.from_numpy(inputs.T @ inputs).float()))

    correlations = draw.T @ draw / np.outer(*(2 * [np.linalg.norm(draw, axis=0) + 1e-30]))
    np.fill_diagonal(correlations, 1.01)
    assert left(draw) == pytest.approx(np.linalg.det(correlations) ** (1 / 6), rel=1e-4)
    assert left(draw) < 0.8
    assert left(draw[:, ::-1] * [1, 50, 1, 1, 4, 1]) == pytest.approx(left(draw), rel=1e-3)
    assert left(np.eye(6)) == pytest.approx(1.01)
    assert left_by_feedback(Statistics(0)) == 1.0


def test_an_expert_without_tokens_costs_nothing(tmp_path: Path) -> None:
    job = prepare(
        tiny.save("mixtral", tmp_path),
        replace(MIXED, weights=replace(OWN, group_size=16), allocate=Allocation((replace(LOW, group_size=16),))),
        "subbyte",
    )
    found = costs(job, torch.full((1, 2), 3), 0)  # two tokens cannot reach all experts twice
    assert set(found) == set(job.schemes)
    assert any(cost == [0.0, 0.0] for cost in found.values())
    assert any(cost[0] > 0 for cost in found.values())


# What layers get


def chosen(recipe: Recipe) -> dict[str, Scheme]:
    return allotted(prepare(MINI, recipe, "auto"), WINDOWS)[0]


def test_a_layer_that_matters_more_gets_more_and_fused_layers_get_the_same() -> None:
    job = prepare(MINI, MIXED, "auto")
    found, note = allotted(job, WINDOWS)
    assert set(found) == set(job.schemes)
    assert {scheme.bits for scheme in found.values()} >= {3, 5}
    assert float(note.split(": ")[1].split()[0]) < 0.97
    for i in range(job.anatomy.n_blocks):
        for group in job.anatomy.fused(i):
            assert len({str(found[name]) for name in group}) == 1
    each = costs(job, WINDOWS[:3], 0)
    density = {n: each[n][0] / np.prod(job.source.shape(f"{n}.weight")) for n in each if "o_proj" in n or "down" in n}
    bits = [found[name].bits for name in sorted(density, key=density.__getitem__)]
    assert bits == sorted(bits)  # units of one linear, whose options all cost in proportion
    apart = chosen(replace(MIXED, allow_unfused=True))
    assert any(
        len({str(apart[n]) for n in group}) > 1 for i in range(job.anatomy.n_blocks) for group in job.anatomy.fused(i)
    )


def test_overrides_and_kept_layers_stay_as_they_are() -> None:
    eight = Scheme.parse("int8/g64/asym")
    recipe = replace(MIXED, overrides=(("*.0.mlp.down_proj", eight), ("*.1.self_attn.o_proj", "keep")))
    found = chosen(recipe)
    assert not any(name.endswith(("0.mlp.down_proj", "1.self_attn.o_proj")) for name in found)
    assert len(found) == 26


# Whole runs


def test_a_run_has_no_more_bits_and_says_what_it_chose(tmp_path: Path) -> None:
    plain = subbyte.quantize(MINI, PLAIN, tmp_path / "plain", calibration=TOKENS)
    result = subbyte.quantize(MINI, MIXED, tmp_path / "mixed", calibration=TOKENS)
    assert result.bits_per_weight <= plain.bits_per_weight
    assert result.bits_per_weight > 0.98 * plain.bits_per_weight
    assert checkpoint_size(tmp_path / "mixed").bits_per_weight <= checkpoint_size(tmp_path / "plain").bits_per_weight
    assert f"at most {result.plan.notes[-1].split('at most ')[1].split()[0]} bits" in result.plan.notes[-1]
    source = Source.open(tmp_path / "mixed")
    form = formats.detect(source.config)
    assert form is not None
    reported = {layer.name: layer.scheme for block in result.blocks for layer in block.layers}
    assert {name: str(form.read(source, name).weight.scheme) for name in form.layers(source)} == reported
    assert reported == {name: str(scheme) for name, scheme in chosen(MIXED).items()}
    assert [note for block in result.blocks for note in block.notes if "by sensitivity" in note]


def test_a_run_that_is_killed_ends_the_same(tmp_path: Path) -> None:
    subbyte.quantize(MINI, MIXED, tmp_path / "whole", calibration=TOKENS)
    assert killed(tmp_path, MIXED, tmp_path / "out", "block", 2) == -signal.SIGKILL
    subbyte.quantize(MINI, MIXED, tmp_path / "out", calibration=TOKENS, resume=True)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_the_plan_states_its_bits_and_its_passes() -> None:
    stated = plan(prepare(MINI, MIXED, "auto"), *TOKENS.shape)
    assert "at most 4.3" in stated.notes[-1]
    assert not plan(prepare(MINI, PLAIN, "auto"), 0, 0).notes


# As data


def test_as_data_and_as_text() -> None:
    recipe = replace(gptq(), allocate=Allocation((Scheme.parse("int3/g128/asym"),), sequences=4, seed=7))
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert recipe.to_data()["allocate"] == {"candidates": ["int3/g128/asym"], "sequences": 4, "seed": 7}
    assert MIXED.wanted == {"fisher"}
    for wrong, said in (
        ({"candidate": []}, "did you mean"),
        ({"candidates": []}, "one scheme at least"),
        ({"candidates": [4]}, "a scheme"),
        ({"candidates": ["int3/token"]}, "a scheme for weights"),
        ({"candidates": ["int3/g128"], "sequences": 0}, "1 to"),
        ({"candidates": ["int3/g128"], "seed": -1}, "0 to"),
        ({"candidates": ["v2k64/tensor"]}, "of one kind"),
    ):
        with pytest.raises(RecipeError, match=said):
            Recipe.from_data({**recipe.to_data(), "allocate": wrong})
    given: Any = "int3/g128"
    with pytest.raises(RecipeError, match="an Allocation"):
        replace(gptq(), allocate=given)


def test_a_candidate_that_does_not_fit_a_layer_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ShapeError, match="group size of"):
        prepare(MINI, replace(MIXED, allocate=Allocation((Scheme.parse("int3/g100"),))), "auto")
