"""NUPES: the checks of its sheet that learn from data, and the ordering on a trained model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tests.pipeline.mini import MINI, TOKENS
from tests.systems.quality import Quality
from tests.systems.test_powerquant import FOUR, table

import subbyte
from subbyte.calibration import Statistics
from subbyte.checkpoint import load
from subbyte.schemes import Scheme
from subbyte.solvers import PowerLearn, PowerSearch
from subbyte.solvers.base import missed
from subbyte.solvers.power_learn import slopes, soft_round
from subbyte.systems import nupes, powerquant, rtn


def layer(seed: int = 0, rows: int = 32, columns: int = 48) -> tuple[np.ndarray, Statistics, Statistics]:
    """A weight with long tails, statistics of correlated inputs, and of others of the same distribution."""
    draw = np.random.default_rng(seed)
    weight = draw.laplace(size=(rows, columns)).astype(np.float32)
    mixed = draw.standard_normal((columns, columns)) * np.exp(draw.normal(size=columns))

    def seen() -> Statistics:
        x = draw.standard_normal((400, columns)) @ mixed
        return Statistics(tokens=400, gram=torch.from_numpy((x.T @ x).astype(np.float32)))

    return weight, seen(), seen()


def test_gradients_are_those_of_central_differences() -> None:
    t = np.concatenate([np.linspace(-1, -0.05, 30), np.linspace(0.05, 1, 30)]).astype(np.float64)
    for a in (0.2, 0.6, 1.0, 1.5):
        exponent = np.array([[a]])
        _, by_t, by_exponent = slopes(t, exponent)  # type: ignore[arg-type]
        step = 1e-6

        def value(t: np.ndarray, a: float) -> np.ndarray:
            return np.sign(t) * np.abs(t) ** (1 / a)

        np.testing.assert_allclose(
            np.ravel(by_t), (value(t + step, a) - value(t - step, a)) / (2 * step), rtol=2e-3, atol=1e-6
        )
        np.testing.assert_allclose(
            np.ravel(by_exponent), (value(t, a + step) - value(t, a - step)) / (2 * step), rtol=2e-3, atol=1e-6
        )
        for at_zero in slopes(np.zeros(3, np.float32), np.array([[a]], np.float32)):
            assert np.isfinite(at_zero).all()
        assert not slopes(np.zeros(3, np.float32), np.array([[a]], np.float32))[2].any()
    u = np.arange(-3.27, 3.3, 0.1)  # whole numbers, where the slope jumps, left out
    for sharpness in (2.0, 20.0):
        soft, by_u = soft_round(u, sharpness)  # type: ignore[arg-type]
        near = [soft_round(u + step, sharpness)[0] for step in (1e-6, -1e-6)]  # type: ignore[arg-type]
        np.testing.assert_allclose(by_u, (near[0] - near[1]) / 2e-6, rtol=1e-2, atol=1e-4)
        assert np.abs(soft - u).max() < 0.5
    whole, _ = soft_round(np.arange(-3.0, 4), 50.0)  # type: ignore[arg-type]
    np.testing.assert_allclose(whole, np.arange(-3, 4), atol=1e-6)


def test_learning_lowers_the_loss_also_on_inputs_it_never_saw() -> None:
    """The keep-best rule on the calibration inputs; held-out inputs on average over layers."""
    before, after = [], []
    for seed in range(4):
        weight, stats, others = layer(seed)
        start = table(PowerSearch().solve(weight, FOUR))
        learned = table(PowerLearn(iterations=150).solve(weight, FOUR, stats))
        seen = np.asarray(stats.hessian)
        assert missed(weight, learned.dequantize(), seen) < missed(weight, start.dequantize(), seen)
        held_out = np.asarray(others.hessian)
        before.append(missed(weight, start.dequantize(), held_out))
        after.append(missed(weight, learned.dequantize(), held_out))
    assert np.mean(after) < 0.8 * np.mean(before)


def test_codes_are_free_on_the_whole_grid() -> None:
    """Where the exponent moves, codes near 0 move by many steps, which floor or ceil could not follow."""
    weight, stats, _ = layer(5)
    uniform = table(PowerSearch(exponent=1.0).solve(weight, FOUR))
    learned = table(PowerLearn(iterations=100).solve(weight, FOUR, stats))
    assert learned.exponent is not None
    assert float(learned.exponent[0]) < 0.9
    assert np.abs(learned.codes().astype(int) - uniform.codes().astype(int)).max() > 1


def test_nothing_is_lost_without_inputs_or_weights() -> None:
    weight, stats, _ = layer(6)
    none = PowerLearn(iterations=3).solve(weight, FOUR, Statistics(tokens=0))
    assert "no calibration tokens" in none.note
    np.testing.assert_array_equal(table(none).codes(), table(PowerSearch().solve(weight, FOUR)).codes())
    weight[4] = 0
    for scope in ("layer", "channel"):
        scheme = Scheme.parse(f"power4{'r' * (scope == 'channel')}/g16/f16")
        found = PowerLearn(scope, iterations=5).solve(weight, scheme, stats)  # type: ignore[arg-type]
        assert np.isfinite(found.tensor.dequantize()).all()
        assert not found.tensor.dequantize()[4].any()


def test_what_is_written_is_what_runs(tmp_path: Path) -> None:
    recipe = nupes(bits=3, group_size=16, scope="channel", iterations=5)
    result = subbyte.quantize(MINI, recipe, tmp_path / "out", calibration=TOKENS)
    assert result.verified is not None
    tokens = torch.from_numpy(TOKENS[:2])
    with torch.no_grad():
        logits = load(tmp_path / "out")(input_ids=tokens).logits
        again = subbyte.quantize(MINI, recipe, calibration=TOKENS, verify=False)
        torch.testing.assert_close(again(input_ids=tokens).logits, logits, rtol=0, atol=0)


def test_data_beats_no_data_and_powers_beat_uniform_steps(llama: Quality) -> None:
    """At 4 bits and a scale for each output, told by the divergence from the float model."""
    uniform = llama.divergence(replace(rtn(group_size=-1), weights=Scheme.parse("int4/channel/narrow")))
    powers, learned = llama.divergence(powerquant()), llama.divergence(nupes(iterations=60), samples=16)
    assert learned < powers < uniform
