"""QuantEase: its sheet's checks (those of the sweep alone: tests/kernels/test_coordinate_descent.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from tests.pipeline.mini import MINI, TOKENS
from tests.systems.quality import Quality

import subbyte
from subbyte.calibration import Statistics
from subbyte.checkpoint import load
from subbyte.errors import NotFiniteError
from subbyte.outliers import largest, largest_columns
from subbyte.schemes import Scheme
from subbyte.solvers import CoordinateDescent, Gptq, Nearest
from subbyte.systems import quantease, rtn
from subbyte.tensors import Decomposition, QuantizedTensor

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


HEAVY = DRAW.standard_t(3, (48, 96)).astype(np.float32)
HEAVY_INPUTS = (DRAW.standard_normal((400, 96)) @ DRAW.standard_normal((96, 96)) / 8).astype(np.float32)
HEAVY_STATS = Statistics(tokens=400, gram=torch.from_numpy(HEAVY_INPUTS.T @ HEAVY_INPUTS))


def apart(scheme: str = "int3/channel/asym", weight: np.ndarray = HEAVY, **options: Any) -> Any:
    return CoordinateDescent(**options).solve(weight, fine(scheme), HEAVY_STATS)


def naive(weight: np.ndarray, sigma: np.ndarray, bits: int, sweeps: int, share: float, structured: bool) -> float:
    """Algorithm 3 from its formulas, entry by entry in f64: g(B, H) after all sweeps."""
    rows, cols = weight.shape
    count = round(share * (cols if structured else weight.size))

    def project(h: np.ndarray) -> np.ndarray:
        size = np.square(h).sum(axis=0) if structured else np.square(h).reshape(-1)
        keep = np.argsort(-size, kind="stable")[:count]
        if structured:
            return h * np.isin(np.arange(cols), keep)
        return h * np.isin(np.arange(h.size), keep).reshape(h.shape)

    def grid(row: np.ndarray, inside: np.ndarray) -> tuple[float, int]:
        drop = 0 if structured else round(share * cols / 2)
        kept = np.sort(row[inside])[drop : inside.sum() - drop]
        lo, hi = min(kept.min(), 0), max(kept.max(), 0)
        return (hi - lo) / (2**bits - 1), round(-lo / ((hi - lo) / (2**bits - 1)))

    eta = 1 / (2 * np.linalg.eigvalsh(sigma)[-1])
    h = project(weight)
    b = weight - h
    for k in range(sweeps):
        relaxed = k % 3 == 1 and k < sweeps - 4
        for i in range(rows):
            s, z = grid(weight[i], ~(h != 0).any(axis=0) if structured else np.ones(cols, bool))
            for j in range(cols):
                u = b[i, j] + (weight[i] - h[i] - b[i]) @ sigma[:, j] / sigma[j, j]
                b[i, j] = u if relaxed else s * (min(max(round(u / s) + z, 0), 2**bits - 1) - z)
        h = project(h - eta * (b + h - weight) @ sigma)
    missed = weight - b - h
    return float(np.trace(missed @ sigma @ missed.T))


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("sweeps", [1, 8])
@pytest.mark.parametrize("act_order", [False, True])
def test_outliers_as_the_formulas_have_them(structured: bool, sweeps: int, act_order: bool) -> None:
    """The columns' order changes which local minimum is found, so with act-order only the errors are near."""
    solved = apart(sweeps=sweeps, outliers=0.05, structured=structured, act_order=act_order)
    sigma = HEAVY_STATS.hessian.double().numpy()
    expected = naive(HEAVY.astype(np.float64), sigma, 3, sweeps, 0.05, structured)
    assert 2 * solved.loss == pytest.approx(expected, rel=0.1 if act_order else 0.02)


@pytest.mark.parametrize("scheme", ["int3/channel/asym", "int3/g32/asym", "int2/channel", "int4/tensor"])
@pytest.mark.parametrize("structured", [False, True])
def test_outliers_are_as_many_as_asked_for_and_lower_the_error(scheme: str, structured: bool) -> None:
    plain, solved = apart(scheme), apart(scheme, outliers=0.03, structured=structured)
    weight = solved.tensor
    assert isinstance(weight, Decomposition)
    if structured:
        assert weight.kept.values.shape == (48, round(0.03 * 96))
        assert weight.sparse is None
    else:
        assert len(weight.sparse.values) <= round(0.03 * 48 * 96)
        assert weight.kept is None
    missed = (weight.dequantize() - HEAVY).astype(np.float64)
    exact = float(np.square(HEAVY_INPUTS.astype(np.float64) @ missed.T).sum()) / 400
    assert solved.loss == pytest.approx(exact, rel=1e-3)
    assert solved.loss < plain.loss


def test_single_outliers_are_worth_more_than_columns() -> None:
    assert apart(outliers=0.03).loss < apart(outliers=0.03, structured=True).loss


def test_no_outliers_are_the_plain_descent() -> None:
    one, other = apart().tensor, apart(outliers=1e-9).tensor
    assert isinstance(other, QuantizedTensor)
    np.testing.assert_array_equal(one.codes(), other.codes())


@pytest.mark.parametrize("step", [1.0, 2.0])
@pytest.mark.parametrize("structured", [False, True])
def test_a_step_of_the_outliers_never_raises_the_error(step: float, structured: bool) -> None:
    """The last sweep only adds the step of H: without it the error is that of the H before."""
    solver = CoordinateDescent(sweeps=1, outliers=0.05, structured=structured, step=step)
    weight = solver.solve(HEAVY, fine("int2/channel/asym"), HEAVY_STATS).tensor
    assert isinstance(weight, Decomposition)
    dense = weight.dense.dequantize()
    if structured:
        first = np.zeros_like(HEAVY)
        first[:, largest_columns(HEAVY, 5)] = HEAVY[:, largest_columns(HEAVY, 5)]
    else:
        first = np.where(largest(np.abs(HEAVY), round(0.05 * HEAVY.size)), HEAVY, 0)
    before, after = (
        np.square(HEAVY_INPUTS.astype(np.float64) @ (HEAVY - found).T).sum()
        for found in (dense + first, weight.dequantize())
    )
    assert after <= before * (1 + 1e-5)


def test_dead_inputs_with_outliers() -> None:
    gram = HEAVY_STATS.gram.clone()
    gram[[3, 50]] = 0
    gram[:, [3, 50]] = 0
    solved = CoordinateDescent(4, outliers=0.02).solve(HEAVY, fine("int3/channel"), Statistics(tokens=400, gram=gram))
    assert np.isfinite(solved.tensor.dequantize()).all()
    nothing = Statistics(tokens=3, gram=torch.zeros(96, 96))
    assert CoordinateDescent(4, outliers=0.02).solve(HEAVY, fine("int3/channel"), nothing).loss == 0


def test_a_model_with_outliers_runs_as_it_was_solved(tmp_path: Path) -> None:
    result = subbyte.quantize(
        MINI, quantease(bits=3, outliers=0.01, iterations=6), tmp_path / "out", calibration=TOKENS
    )
    assert result.format == "subbyte"
    assert result.verified is not None
    assert result.verified < 1e-3
    plain = subbyte.quantize(MINI, quantease(bits=3, iterations=6), tmp_path / "plain", calibration=TOKENS)
    assert result.error < plain.error
    assert 0.32 < result.bits_per_weight - plain.bits_per_weight < 0.6  # 32 bits an entry, and pointers of narrow rows


def test_outliers_help_a_trained_model(llama: Quality) -> None:
    """Table of the sheet: three bits, then one percent in columns, then one percent one by one."""
    plain, columns, entries = (
        llama.loss(quantease(bits=3, iterations=12, outliers=share, structured=structured), 32)
        for share, structured in ((0.0, False), (0.01, True), (0.01, False))
    )
    assert entries < plain
    assert entries < columns


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
