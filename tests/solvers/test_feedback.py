"""Stochastic rounding and bounded feedback, beside loops over columns written from QuIP's definitions."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from subbyte import kernels
from subbyte.calibration import Statistics
from subbyte.errors import RecipeError, SingularError
from subbyte.schemes import Scheme
from subbyte.solvers import Ldlq
from subbyte.solvers.feedback import bounded, dithered

Rounding = Literal["ldlq", "stochastic", "ldlbal_admm", "nearest"]

TOP = 7
SCHEME = Scheme.parse("int3/tensor/asym/float_zero/f32")
RANDOM = np.random.default_rng(11)
X = RANDOM.standard_normal((300, 24)) @ (np.eye(24) + 0.3 * RANDOM.standard_normal((24, 24)))
MOMENTS = (X.T @ X / np.square(X).sum(axis=0).mean()).astype(np.float32)
WEIGHT = RANDOM.uniform(0, TOP, (10, 24)).astype(np.float32)


def fed_back(feedback: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Codes of the last column, the one before, ...: clamp(floor(w + (w - q) feedback + shift))."""
    codes = np.zeros(WEIGHT.shape)
    for k in range(WEIGHT.shape[1] - 1, -1, -1):
        left = (WEIGHT[:, k + 1 :] - codes[:, k + 1 :]) @ feedback[k + 1 :, k]
        codes[:, k] = np.clip(np.floor(WEIGHT[:, k] + left + shift[:, k]), 0, TOP)
    return codes


def unit_factor(moments: np.ndarray) -> np.ndarray:
    """L of H = L D L^T by elimination from the first column."""
    left, factor = moments.astype(np.float64).copy(), np.eye(len(moments))
    for k in range(len(left)):
        factor[k:, k] = left[k:, k] / left[k, k]
        left -= np.outer(factor[:, k], factor[:, k]) * left[k, k]
    return factor


def inverse(moments: np.ndarray) -> np.ndarray:
    """Z of I + Z = inv(L)."""
    return np.linalg.inv(unit_factor(moments)) - np.eye(len(moments))


def cost(z: np.ndarray) -> float:
    """tr((I + Z) H (I + Z)^T)."""
    whole = z + np.eye(len(z))
    return float(np.trace(whole @ MOMENTS @ whole.T))


def solved(rounding: Rounding, seed: int = 0) -> tuple[np.ndarray, float]:
    """The rounded weight, and what it misses of the outputs: |X (W - Q)^T|^2."""
    stats = Statistics(len(X), gram=torch.from_numpy((X.T @ X).astype(np.float32)))
    solver = Ldlq("none", rescale=False, rounding=rounding, seed=seed)
    found = solver.solve(WEIGHT - np.float32(TOP / 2), SCHEME, stats).tensor.dequantize() + TOP / 2
    return found, float(np.square(X @ (found - WEIGHT).T).sum())


def test_dithered_weights_round_as_the_loop_with_its_draws() -> None:
    uniform = RANDOM.random(WEIGHT.shape)
    codes, _, _ = kernels.ldlq(dithered(WEIGHT, uniform, MOMENTS), MOMENTS, 3)
    expected = fed_back(unit_factor(MOMENTS), uniform)
    assert (codes == expected).mean() > 0.99  # f32 in one, f64 in the other
    assert (expected != fed_back(unit_factor(MOMENTS), np.full(WEIGHT.shape, 0.5))).mean() > 0.3


def test_stochastic_rounding_has_the_weight_as_its_mean() -> None:
    found = np.stack([solved("stochastic", seed)[0] for seed in range(200)])
    inside = (found.min(axis=0) > found.min()) & (found.max(axis=0) < found.max())  # where no code was ever clamped
    assert inside.mean() > 0.2
    away = (found.mean(axis=0) - WEIGHT)[inside] / (found.std(axis=0)[inside] / np.sqrt(len(found)))
    assert np.square(away).mean() < 2  # 1 if the mean is right and draws are independent
    again = solved("stochastic", seed=3)[0]
    assert (again == found[3]).all()
    assert (again != found[4]).any()


def test_bounded_feedback_costs_least_within_its_bound() -> None:
    held = inverse(bounded(MOMENTS))
    norms = np.linalg.norm(held, axis=0)
    assert norms.max() < 1 + 1e-3
    free = inverse(MOMENTS)
    assert np.linalg.norm(free, axis=0).max() > 1.1  # so that the bound is of use here
    assert cost(free) < cost(held) < cost(np.zeros_like(held))
    # projected gradient finds nothing cheaper
    found = np.zeros_like(held)
    for _ in range(3000):
        found = np.tril(found - 0.5 / np.linalg.norm(MOMENTS, 2) * 2 * (found + np.eye(len(held))) @ MOMENTS, -1)
        found /= np.maximum(np.linalg.norm(found, axis=0), 1)
    assert cost(held) == pytest.approx(cost(found), rel=1e-3)


def test_a_bound_that_is_not_reached_leaves_the_feedback() -> None:
    mild = 0.9 * np.eye(24, dtype=np.float32) + 0.1 * MOMENTS
    assert np.linalg.norm(inverse(mild), axis=0).max() < 1
    np.testing.assert_allclose(inverse(bounded(mild)), inverse(mild), atol=2e-3)


def test_codes_of_bounded_feedback_are_a_fixed_point_of_its_formula() -> None:
    given = bounded(MOMENTS)
    codes, values, _ = kernels.ldlq(WEIGHT, given, 3)
    left = values - (values - WEIGHT) @ unit_factor(given)
    assert (codes == np.clip(np.floor(left + 0.5), 0, TOP)).mean() > 0.99
    assert (codes == fed_back(unit_factor(given), np.full(WEIGHT.shape, 0.5))).mean() > 0.99


def test_bounded_feedback_loses_less_than_none_and_draws_more_than_halves() -> None:
    assert solved("ldlbal_admm")[1] < solved("nearest")[1]
    assert solved("ldlq")[1] < np.mean([solved("stochastic", seed)[1] for seed in range(10)])


@pytest.mark.parametrize("rounding", ["stochastic", "ldlbal_admm"])
def test_no_passes_after_them(rounding: Rounding) -> None:
    with pytest.raises(RecipeError, match="passes"):
        Ldlq(rounding=rounding, passes=1)


def test_a_singular_hessian_cannot_be_dithered() -> None:
    with pytest.raises(SingularError):
        dithered(np.zeros((2, 3), np.float32), np.zeros((2, 3)), np.zeros((3, 3), np.float32))
