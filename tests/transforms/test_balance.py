"""Balance: what stands out goes back among the others, the rest and the block's function stay."""

from __future__ import annotations

import numpy as np
import pytest
from tests.transforms.blocks import MINI, difference, works

from subbyte.errors import RecipeError
from subbyte.transforms import Balance
from subbyte.transforms.balance import balancing_scale

rng = np.random.default_rng(5)


def sizes(spread: float = 0.1) -> np.ndarray:
    return np.exp(rng.normal(0, spread, 64)).astype(np.float32)


def test_only_channels_that_stand_out_are_touched() -> None:
    inputs, weights = sizes(), sizes()
    inputs[7] *= 1000
    weights[7] /= 1000
    weights[30] *= 50
    scale = balancing_scale(inputs, weights, 0.3, 2)
    assert set(np.flatnonzero(scale != 1)) == {7, 30}
    assert scale[7] > 100 > 1 > scale[30]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_without_anything_to_spare_all_channels_become_alike(alpha: float) -> None:
    inputs, weights = sizes(1.0), sizes(1.0)
    scale = balancing_scale(inputs, weights, alpha, 1)
    mixed = (inputs / scale) ** alpha / (weights * scale) ** (1 - alpha)
    np.testing.assert_allclose(mixed, np.median(mixed), rtol=1e-4)


def test_the_spare_part_is_left() -> None:
    inputs, weights = np.ones(9, np.float32), np.ones(9, np.float32)
    weights[0] = 1 / 64
    np.testing.assert_allclose(balancing_scale(inputs, weights, 0.0, 4)[0], 16, rtol=1e-5)


def test_dead_channels_stay_and_do_not_count() -> None:
    inputs, weights = np.ones(8, np.float32), np.ones(8, np.float32)
    inputs[:3], weights[3:5], inputs[7] = 0, 0, 100
    scale = balancing_scale(inputs, weights, 1.0, 2)
    np.testing.assert_allclose(scale, [1] * 7 + [50], rtol=1e-5)
    assert (balancing_scale(np.zeros(4, np.float32), weights[:4], 0.3, 2) == 1).all()


@pytest.mark.parametrize("spare", [1.0, 2.0])
def test_the_function_of_a_block_stays(spare: float) -> None:
    work, outputs = works(MINI, wanted={"absmean"})[1]
    name = next(iter(work.schemes))
    before = {name: work.weight(name).copy() for name in work.schemes}
    Balance(spare=spare).apply(work)
    assert any((work.weight(name) != before[name]).any() for name in before) or spare > 1
    assert difference(work.block.forward(work.hidden), outputs) < 1e-5, name


def test_refuses() -> None:
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(RecipeError, match=r"balance\.alpha"):
            Balance(alpha=alpha)
    for spare in (0.5, float("inf"), float("nan")):
        with pytest.raises(RecipeError, match=r"balance\.spare"):
            Balance(spare=spare)
