"""QuantEase: its sheet's checks (those of the sweep alone: tests/kernels/test_coordinate_descent.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from tests.pipeline.mini import MINI, TOKENS

import subbyte
from subbyte.calibration import Statistics
from subbyte.checkpoint import load
from subbyte.errors import NotFiniteError
from subbyte.schemes import Scheme
from subbyte.solvers import CoordinateDescent, Gptq, Nearest
from subbyte.systems import quantease, rtn

DRAW = np.random.default_rng(21)
ROWS, COLS, COUNT = 64, 128, 512
WEIGHT = DRAW.standard_normal((ROWS, COLS)).astype(np.float32)
INPUTS = (DRAW.standard_normal((COUNT, COLS)) @ DRAW.standard_normal((COLS, COLS)) / 8).astype(np.float32)
STATS = Statistics(tokens=COUNT, gram=torch.from_numpy(INPUTS.T @ INPUTS))
SCHEMES = ["int3/channel/asym", "int3/g32", "int2/channel/asym", "int4/tensor"]


def fine(scheme: str) -> Scheme:
    return Scheme.parse(scheme).resolve("f32")


def error(solver: CoordinateDescent | Gptq | Nearest, scheme: str) -> float:
    missed = solver.solve(WEIGHT, fine(scheme), STATS).tensor.dequantize().astype(np.float64) - WEIGHT
    return float(np.square(INPUTS.astype(np.float64) @ missed.T).sum())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_layer_error_is_below_those_of_gptq_and_nearest(scheme: str) -> None:
    found = error(CoordinateDescent(), scheme)
    assert found < error(Gptq(static_groups=True), scheme)
    assert found < error(Nearest(), scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("start", ["nearest", "gptq"])
def test_from_given_codes_without_relaxed_sweeps_the_error_falls(
    scheme: str, start: Literal["nearest", "gptq"]
) -> None:
    first: Nearest | Gptq = Nearest() if start == "nearest" else Gptq(static_groups=True)
    assert error(CoordinateDescent(2, relax=0, start=start), scheme) < error(first, scheme)


def test_relaxed_sweeps_help() -> None:
    """The heuristic of section 3.3, at three bits on correlated inputs."""
    assert error(CoordinateDescent(), SCHEMES[0]) < error(CoordinateDescent(relax=0), SCHEMES[0])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("act_order", [False, True])
def test_every_value_is_on_the_grid_of_the_original_weight(scheme: str, act_order: bool) -> None:
    solved = CoordinateDescent(6, act_order=act_order).solve(WEIGHT, fine(scheme), STATS)
    nearest = Nearest().solve(WEIGHT, fine(scheme)).tensor
    np.testing.assert_array_equal(solved.tensor.scale, nearest.scale)
    assert solved.tensor.index is None
    missed = solved.tensor.dequantize().astype(np.float64) - WEIGHT
    exact = float(np.square(INPUTS.astype(np.float64) @ missed.T).sum()) / COUNT
    assert solved.loss == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("act_order", [False, True])
def test_a_diagonal_hessian_gives_nearest_and_dead_columns_too(act_order: bool) -> None:
    diagonal = np.exp(DRAW.normal(0, 2, COLS)).astype(np.float32)
    diagonal[[3, 77]] = 0
    stats = Statistics(tokens=8, gram=torch.from_numpy(np.diag(diagonal)))
    solved = CoordinateDescent(act_order=act_order).solve(WEIGHT, fine("int3/g32/asym"), stats).tensor
    np.testing.assert_array_equal(solved.codes(), Nearest().solve(WEIGHT, fine("int3/g32/asym")).tensor.codes())


def test_without_tokens_it_rounds_and_says_so() -> None:
    solved = CoordinateDescent().solve(WEIGHT, fine("int4/g32"), Statistics(tokens=0))
    assert "no calibration tokens" in solved.note
    gram = torch.full((COLS, COLS), torch.nan)
    with pytest.raises(NotFiniteError, match="Hessian of weight"):
        CoordinateDescent().solve(WEIGHT, fine("int4/g32"), Statistics(tokens=3, gram=gram))


def test_the_papers_defaults() -> None:
    recipe = quantease(bits=3)
    assert str(recipe.weights) == "int3/channel/asym"
    assert recipe.solver == CoordinateDescent(30, 3, act_order=False, start="weight", mse=False)
    assert quantease(start="gptq", iterations=2).solver == CoordinateDescent(2, start="gptq")


def test_a_model_keeps_more_of_its_output_than_by_rounding_to_nearest(tmp_path: Path) -> None:
    missed = {}
    with torch.no_grad():
        expected = load(MINI)(input_ids=torch.from_numpy(TOKENS)).logits
        for recipe in (quantease(bits=3), rtn(bits=3, group_size=-1)):
            subbyte.quantize(MINI, recipe, tmp_path / recipe.name, calibration=TOKENS)
            found = load(tmp_path / recipe.name)(input_ids=torch.from_numpy(TOKENS)).logits
            missed[recipe.name] = float((found - expected).norm() / expected.norm())
    assert missed["quantease"] < 0.8 * missed["rtn"]
