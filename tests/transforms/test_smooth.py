"""Smooth: SmoothQuant's eq. 4 and its consequences (sheet, checks 2, 3 and 8), and the search over alpha."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.transforms.blocks import MINI, difference, works

from subbyte.errors import RecipeError
from subbyte.schemes import Scheme
from subbyte.transforms import Smooth
from subbyte.transforms.smooth import ALPHAS, smoothing_scale

rng = np.random.default_rng(7)
ACT = np.exp(rng.normal(0, 2, 64)).astype(np.float32)
WEIGHT = np.exp(rng.normal(-2, 1, 64)).astype(np.float32)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.85, 1.0])
def test_maxima_after_smoothing(alpha: float) -> None:
    scale = smoothing_scale(ACT, WEIGHT, alpha)
    np.testing.assert_allclose(ACT / scale, (ACT * WEIGHT) ** (1 - alpha), rtol=1e-5)
    np.testing.assert_allclose(WEIGHT * scale, (ACT * WEIGHT) ** alpha, rtol=1e-5)


def test_a_second_time_is_the_identity_at_one_half() -> None:
    scale = smoothing_scale(ACT, WEIGHT, 0.5)
    np.testing.assert_allclose(smoothing_scale(ACT / scale, WEIGHT * scale, 0.5), 1, rtol=1e-5)


def test_alpha_one_makes_every_channel_reach_one() -> None:
    np.testing.assert_allclose(ACT / smoothing_scale(ACT, WEIGHT, 1.0), 1, rtol=1e-6)


def test_dead_channels() -> None:
    act, weight = np.array([0, 2, 0, 1], np.float32), np.array([1, 0, 0, 1], np.float32)
    for alpha in (0.3, 0.5, 1.0):
        scale = smoothing_scale(act, weight, alpha)
        assert np.isfinite(scale.astype(np.float16)).all()
        assert (scale > 0).all()
        assert scale[0] == np.float32(1e-5) == scale[2] or alpha < 1
        assert scale[0] == np.float32(1e-5)
        np.testing.assert_allclose(scale[1], 2**alpha / np.float32(1e-5) ** (1 - alpha), rtol=1e-5)


def test_only_norms_unless_asked_for_more() -> None:
    for extra in (False, True):
        work, outputs = works(MINI, wanted={"absmax"})[1]
        before = {name: work.weight(name).copy() for name in work.schemes}
        Smooth(alpha=0.5, extra_sites=extra).apply(work)
        moved = {name.rpartition(".")[2] for name in before if (work.weight(name) != before[name]).any()}
        norm_sites = {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}
        assert moved == (norm_sites | {"o_proj", "down_proj"} if extra else norm_sites)
        assert difference(work.block.forward(work.hidden), outputs) < 1e-5


def test_all_consumers_of_a_norm_share_one_scale_in_any_order() -> None:
    found = []
    for step in (1, -1):
        work, _ = works(MINI, wanted={"absmax"})[0]
        pair = work.pairs[0]
        work.pairs = [replace(pair, consumers=pair.consumers[::step])]
        before = {name: work.weight(name).copy() for name in pair.consumers}
        Smooth(alpha=0.7).apply(work)
        ratios = [np.median(work.weight(name) / before[name], axis=0) for name in pair.consumers]
        for ratio in ratios:
            np.testing.assert_allclose(ratio, ratios[0], rtol=1e-6)
        found.append(ratios[0])
    np.testing.assert_array_equal(found[0], found[1])


def test_grouped_queries_get_one_scale_per_key_value_head() -> None:
    work, _ = works(MINI, wanted={"absmax"})[0]
    output = f"{work.block.name}.self_attn.o_proj"
    before = work.weight(output).copy()
    Smooth(extra_sites=True).apply(work)
    scale = np.median(work.weight(output) / before, axis=0).reshape(2, 2, 32)
    np.testing.assert_allclose(scale[:, 0], scale[:, 1], rtol=1e-6)
    assert scale.std() > 0.01


def test_the_search_takes_the_alpha_with_the_smallest_error() -> None:
    def error(alpha: float) -> float:
        work, _ = works(MINI, scheme="int4/channel/narrow/f32")[0]
        pair = work.pairs[0]
        work.pairs, work.activations = [pair], Scheme.parse("int8/token")
        x = [work.stats[name].sample.clone() for name in pair.consumers]  # type: ignore[union-attr]
        wanted = [inputs @ work.module(name).weight.T for inputs, name in zip(x, pair.consumers, strict=True)]
        Smooth(alpha=alpha).apply(work)
        total = 0.0
        for name, outputs in zip(pair.consumers, wanted, strict=True):
            weight, inputs = work.module(name).weight.detach(), work.stats[name].sample
            assert inputs is not None
            step = weight.abs().amax(1, keepdim=True).clamp_min(1e-5) / 7
            grid = inputs.abs().amax(1, keepdim=True) / 127.5
            back = (inputs / grid).round().clamp(-128, 127) * grid @ ((weight / step).round() * step).T
            total += float((back - outputs).square().sum())
        return total

    errors = {alpha: error(alpha) for alpha in ALPHAS}
    work, _ = works(MINI, scheme="int4/channel/narrow/f32")[0]
    work.pairs, work.activations = [work.pairs[0]], Scheme.parse("int8/token")
    Smooth(alpha="search").apply(work)
    found = float(work.notes[0].rpartition(" ")[2])
    assert errors[found] <= min(errors.values()) * (1 + 1e-4)
    assert max(errors.values()) > 1.02 * min(errors.values()), "the search had nothing to find"


def test_experts_without_tokens_are_left_alone(tmp_path: object) -> None:
    work, outputs = works(MINI, wanted={"absmax"})[0]
    work.stats = {name: replace(stats, tokens=0) for name, stats in work.stats.items()}
    Smooth().apply(work)
    assert len(work.notes) == 2
    assert torch.equal(work.block.forward(work.hidden), outputs)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), "best"])
def test_refuses_other_alphas(alpha: object) -> None:
    with pytest.raises(RecipeError, match="alpha"):
        Smooth(alpha=alpha)  # type: ignore[arg-type]
