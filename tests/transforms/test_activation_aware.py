"""AWQ's two searches against their definitions, written out plainly (sheet, checks 1 to 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.anatomy import tiny
from tests.transforms.blocks import MINI, difference, works

from subbyte.calibration import gather
from subbyte.errors import RecipeError
from subbyte.transforms import ActivationAwareClip, ActivationAwareScale, Work
from subbyte.transforms.activation_aware import candidate

rng = np.random.default_rng(3)
MEAN = np.exp(rng.normal(0, 1.5, 64)).astype(np.float32)


def plain_round(weight: np.ndarray, bits: int = 4, group: int = 32) -> np.ndarray:
    """AWQ's base quantizer, one group after the other: the range does not have to hold zero."""
    out = np.empty_like(weight)
    top = 2**bits - 1
    for row, col in np.ndindex(weight.shape[0], weight.shape[1] // group):
        part = weight[row, col * group : (col + 1) * group]
        scale = np.float32(max(part.max() - part.min(), np.float32(1e-5))) / np.float32(top)
        zero = np.clip(np.rint(-part.min() / scale), 0, top)
        out[row, col * group : (col + 1) * group] = (np.clip(np.rint(part / scale) + zero, 0, top) - zero) * scale
    return out


# Candidates


@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.5, 0.95])
def test_candidates_straddle_one(ratio: float) -> None:
    scale = candidate(MEAN, ratio)
    assert abs(np.sqrt(scale.max() * scale.min()) - 1) < 1e-5
    assert ratio > 0 or (scale == 1).all()


def test_a_constant_factor_on_the_activations_changes_nothing() -> None:
    for ratio in (0.0, 0.35, 0.95):
        np.testing.assert_allclose(candidate(MEAN * 16, ratio), candidate(MEAN, ratio), rtol=1e-5)


def test_equal_means_give_one() -> None:
    for ratio in (0.0, 0.5, 0.95):
        np.testing.assert_allclose(candidate(np.full(8, 3.7, np.float32), ratio), 1, rtol=1e-6)


def test_dead_channels_drag_the_others_unless_spared() -> None:
    mean = np.array([0, 1, 4], np.float32)
    official = candidate(mean, 0.5)
    np.testing.assert_allclose(official, np.array([1e-4, 1, 2]) / np.sqrt(2e-4), rtol=1e-5)
    np.testing.assert_allclose(candidate(mean, 0.5, spare_dead=True), [1, 1 / np.sqrt(2), np.sqrt(2)], rtol=1e-5)
    assert (candidate(np.zeros(4, np.float32), 0.5, spare_dead=True) == 1).all()


def test_duo_lets_the_weights_speak_and_tries_plain_rounding_first() -> None:
    weight_mean = np.linspace(0.1, 0.9, 64).astype(np.float32)
    raw = np.maximum(MEAN**0.3 / (weight_mean**0.7 + 1e-4), 1e-4)
    np.testing.assert_allclose(candidate(MEAN, 0.3, weight_mean), raw / np.sqrt(raw.max() * raw.min()), rtol=1e-5)
    tried = ActivationAwareScale(duo=True).candidates(MEAN, weight_mean)
    assert len(tried) == 21
    assert (tried[0] == 1).all()
    assert np.isfinite(candidate(np.zeros(4, np.float32), 0.0, np.zeros(4, np.float32))).all()


def test_the_grid() -> None:
    assert len(ActivationAwareScale().candidates(MEAN, None)) == 20
    np.testing.assert_array_equal(ActivationAwareScale().candidates(MEAN, None)[19], candidate(MEAN, 0.95))
    np.testing.assert_array_equal(ActivationAwareScale(inclusive=True).candidates(MEAN, None)[19], candidate(MEAN, 1.0))


# The search


def losses(work: Work, index: int) -> list[float]:
    """The loss of each candidate of one pair, by its definition: the module runs on rounded weights."""
    pair = work.pairs[index]
    stats = work.stats[pair.consumers[0]]
    inspected = work.module(pair.inspect)
    calls = work.block.capture(pair.inspect, work.hidden)
    expected = work.block.run(pair.inspect, calls)
    found = []
    for k in range(20):
        scale = candidate(stats.absmean.numpy(), k / 20)  # type: ignore[union-attr]
        kept = {name: work.weight(name).copy() for name in pair.consumers}
        for name, weight in kept.items():
            work.weight(name)[...] = plain_round(weight * scale) / scale
        found.append(float((work.block.run(pair.inspect, calls) - expected).square().mean()))
        for name, weight in kept.items():
            work.weight(name)[...] = weight
    assert inspected is work.module(pair.inspect)
    return found


def test_takes_the_best_of_the_definition_for_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    import subbyte.calibration as calibration

    work, _ = works(MINI)[1]
    work.pairs = [pair for pair in work.pairs if pair.repeats == 1]
    wanted = [losses(work, k) for k in range(len(work.pairs))]
    before = {name: parameter.clone() for name, parameter in work.block.parameters().items()}
    seen = []
    original = calibration.grid_search

    def watched(*args: object) -> object:
        best, found = original(*args)  # type: ignore[arg-type]
        for name, parameter in work.block.parameters().items():
            assert torch.equal(parameter, before[name]), "a search left its weights behind"
        seen.append((best, found))
        return best, found

    monkeypatch.setattr(calibration, "grid_search", watched)
    ActivationAwareScale(exhaustive=True).apply(work)
    assert len(seen) == len(wanted) == 3
    for (best, found), expected in zip(seen, wanted, strict=True):
        np.testing.assert_allclose(np.divide(found, found[0]), np.divide(expected, expected[0]), rtol=1e-3)
        assert found[best] == min(found) <= found[0]
    assert any(best > 0 for best, _ in seen), "no scale helped: the test shows nothing"


def test_halving_finds_nearly_the_best_in_much_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the losses of all candidates on all tokens: within a hundredth of the least, in a third of the calls."""
    import subbyte.calibration as calibration
    from subbyte.transforms import activation_aware

    monkeypatch.setattr(activation_aware, "PART", 1)  # a sequence at a time
    work, _ = works(MINI, shape=(32, 16))[1]
    work.pairs = [pair for pair in work.pairs if pair.repeats == 1 and pair.inspect not in pair.consumers]
    assert work.pairs
    seen = []
    original = calibration.halving_search

    def watched(loss: Callable[[int, slice], float], grid: range, parts: int) -> object:
        all_of_them = [loss(k, slice(0, parts)) for k in grid]
        calls = 0

        def counted(k: int, part: slice) -> float:
            nonlocal calls
            calls += part.stop - part.start
            return loss(k, part)

        found = original(counted, grid, parts)
        seen.append((all_of_them, found[0], calls / (len(grid) * parts)))
        return found

    monkeypatch.setattr(calibration, "halving_search", watched)
    ActivationAwareScale().apply(work)
    assert len(seen) == len(work.pairs)
    for losses, best, share in seen:
        assert losses[best] <= 1.01 * min(losses) < losses[0]
        assert share < 1 / 3


@pytest.mark.parametrize("family", ["llama", "llama-mha", "llama-biased", "gemma2", "phi3", "opt", "mixtral"])
@pytest.mark.parametrize("options", [{}, {"grouped": True, "duo": True}])
def test_scaling_keeps_the_function(family: str, options: dict[str, bool], tmp_path: Path) -> None:
    for work, outputs in works(tiny.save(family, tmp_path / family)):
        ActivationAwareScale(grid=5, **options).apply(work)  # type: ignore[arg-type]
        assert difference(work.block.forward(work.hidden), outputs) < 1e-5


def test_less_error_than_rounding_on_salient_channels() -> None:
    """Check 7: 1 % of the channels with ten times the activation; 3 bits, held-out tokens."""
    work, _ = works(MINI, scheme="int3/g128/asym/f32")[0]
    pair = next(pair for pair in work.pairs if pair.kind == "gate")
    (name,) = pair.consumers
    draw = np.random.default_rng(0)
    x = draw.normal(0, 1, (2048, 384)).astype(np.float32)
    x[:, draw.choice(384, 4, replace=False)] *= 10
    seen, held = x[:1024], x[1024:]
    stats = replace(
        work.stats[name],
        tokens=1024,
        gram=torch.from_numpy(seen.T @ seen),
        absmean=torch.from_numpy(np.abs(seen).mean(0)),
        sample=torch.from_numpy(seen[::2]),
    )
    work.stats[name], work.pairs = stats, [pair]
    weight = work.weight(name).copy()
    rounded = plain_round(weight, bits=3, group=128)
    ActivationAwareScale().apply(work)
    scale = np.median(work.weight(name) / weight, axis=0)
    aware = plain_round(work.weight(name).copy(), bits=3, group=128) / scale

    def error(q: np.ndarray) -> float:
        return float(np.square(held @ (q - weight).T).mean())

    assert error(aware) < 0.8 * error(rounded)


def test_without_a_finite_loss_nothing_is_scaled() -> None:
    work, outputs = works(MINI)[0]
    gram = work.stats[f"{work.block.name}.mlp.down_proj"].gram
    assert gram is not None
    gram.fill_(float("nan"))
    pair = next(pair for pair in work.pairs if pair.kind == "gate")
    work.pairs = [pair]
    ActivationAwareScale().apply(work)
    assert "no scale gave a finite loss" in work.notes[0]
    assert torch.equal(work.block.forward(work.hidden), outputs)


# Clipping


def test_clip_takes_the_best_of_the_definition_and_leaves_queries_and_keys() -> None:
    work, _ = works(MINI, scheme="int3/g32/asym/f32")[0]
    before = {name: work.weight(name).copy() for name in work.schemes}
    ActivationAwareClip().apply(work)
    clipped = 0
    for name, weight in before.items():
        after = work.weight(name)
        if name.endswith(("q_proj", "k_proj")):
            np.testing.assert_array_equal(after, weight)
            continue
        sample = work.stats[name].sample
        assert sample is not None
        x = sample.numpy().astype(np.float64)
        for row, group in ((0, 0), (3, 1), (7, 2), (20, 3)):
            part = slice(32 * group, 32 * group + 32)
            w = weight[row : row + 1, part]
            errors, limits = [], []
            for i in range(10):
                limit = np.abs(w).max() * np.float32(1 - i / 20)
                moved = plain_round(np.clip(w, -limit, limit), bits=3) - w
                errors.append(float(np.square(x[:, part] @ moved[0]).mean()))
                limits.append(limit)
            found = np.abs(after[row, part]).max()
            taken = int(np.argmin(np.abs(np.array(limits) - found)))
            assert errors[taken] <= min(errors) * (1 + 1e-4) <= errors[0] * (1 + 1e-3)
            np.testing.assert_array_equal(after[row, part], np.clip(w[0], -found, found))
            clipped += taken > 0
    assert clipped > 3, "nothing was clipped: the test shows nothing"


def test_clip_reads_the_scaled_input() -> None:
    work, _ = works(MINI)[0]
    ActivationAwareScale().apply(work)
    again, _ = gather(work.block, work.hidden, list(work.schemes), {"sample"})
    for name, stats in again.items():
        torch.testing.assert_close(work.stats[name].sample, stats.sample, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ActivationAwareScale, {"grid": 0}),
        (ActivationAwareScale, {"eps": -1.0}),
        (ActivationAwareClip, {"shrink_steps": 21}),
        (ActivationAwareClip, {"shrink_steps": 0}),
        (ActivationAwareClip, {"eps": float("inf")}),
    ],
)
def test_refuses_options_out_of_range(kind: type, options: dict[str, float]) -> None:
    with pytest.raises(RecipeError):
        kind(**options)
