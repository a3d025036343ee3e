"""SmoothQuant: the checks of its sheet that need the whole system (eq. 4: tests/transforms), on trained models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from tests.pipeline.mini import MINI, TOKENS
from tests.systems.quality import Quality

import subbyte
from subbyte import kernels
from subbyte.checkpoint import Source, formats, load
from subbyte.recipe import Recipe
from subbyte.schemes import Scheme
from subbyte.solvers import Nearest
from subbyte.systems import rtn, smoothquant

FEW = 16
DRAW = np.random.default_rng(23)


def test_the_quantizers() -> None:
    """Idempotent; zero rows have scale 1e-5 / 127 and decode to 0; at most half a step off (check 7)."""
    x = DRAW.standard_normal((16, 64)).astype(np.float32)
    x[3] = 0
    codes, scale = kernels.quantize_tokens(x)
    back = codes.astype(np.float32) * scale[:, None]
    assert (np.abs(back - x) <= scale[:, None] / 2 * 1.0001).all()
    assert scale[3] == np.float32(1e-5) / np.float32(127)
    np.testing.assert_array_equal(kernels.quantize_tokens(back)[0], codes)
    tensor = Nearest(eps=1e-5).solve(x, Scheme.parse("int8/channel/narrow/f32")).tensor
    assert tensor.codes().min() >= 1, "-128 stays unused"
    assert not tensor.dequantize()[3].any()


def test_the_integer_product_is_the_product_of_what_codes_stand_for() -> None:
    """Check 4: exact 32-bit sums, then one multiplication each with the two scales."""
    x = DRAW.standard_normal((8, 256)).astype(np.float32)
    weight = DRAW.standard_normal((12, 256)).astype(np.float32)
    codes, scale = kernels.quantize_tokens(x)
    tensor = Nearest(eps=1e-5).solve(weight, Scheme.parse("int8/channel/narrow/f32")).tensor
    signed = (tensor.codes().astype(np.int16) - 128).astype(np.int8)
    bias = DRAW.standard_normal(12).astype(np.float32)
    found = kernels.w8a8(codes, signed, scale, tensor.scale[:, 0].copy(), bias=bias)
    sums = codes.astype(np.int64) @ signed.astype(np.int64).T
    np.testing.assert_array_equal(found, sums.astype(np.float32) * scale[:, None] * tensor.scale[:, 0] + bias)


def spiked() -> tuple[np.ndarray, np.ndarray]:
    """Activations with 1 % of the channels fifty times larger, and a weight."""
    x = DRAW.standard_normal((512, 400)).astype(np.float32)
    x[:, DRAW.choice(400, 4, replace=False)] *= 50
    return x, (DRAW.standard_normal((64, 400)) / 20).astype(np.float32)


def rounded(values: np.ndarray, per_row: bool = False) -> np.ndarray:
    largest = np.abs(values).max(axis=1, keepdims=True) if per_row else np.abs(values).max()
    scale = np.maximum(largest, 1e-5) / 127
    return np.rint(values / scale) * scale


def test_smoothing_takes_away_a_tenfold_error_and_finer_levels_have_less() -> None:
    """Checks 5 and 6."""
    from subbyte.transforms.smooth import smoothing_scale

    x, weight = spiked()
    scale = smoothing_scale(np.abs(x).max(0), np.abs(weight).max(0), 0.5)
    exact = x @ weight.T

    def error(x: np.ndarray, w: np.ndarray, per_token: bool) -> float:
        return float(np.square(rounded(x, per_token) @ rounded(w).T - exact).mean())

    assert error(x / scale, weight * scale, False) * 10 < error(x, weight, False)
    smooth = x / scale
    token, tensor = (np.square(rounded(smooth, per_row) - smooth).mean() for per_row in (True, False))
    assert token <= tensor


def test_static_scales_are_those_of_the_smoothed_calibration_set(tmp_path: Path) -> None:
    """Checks 1 and 6: on the calibration tokens static and dynamic per-tensor scales agree at the extremes."""
    recipe = smoothquant(level="O3", alpha=0.7)
    subbyte.quantize(MINI, recipe, tmp_path / "out", calibration=TOKENS)
    source = Source.open(tmp_path / "out")
    form = formats.detect(source.config)
    assert form is not None
    model = load(MINI)
    for name, parameter in model.named_parameters():  # the smoothed float model: folded norms, weights nearly exact
        if name in source:
            parameter.data.copy_(source.read(name))
    largest: dict[str, float] = {}
    layers = form.layers(source)
    for name in layers:
        linear = model.get_submodule(name)
        linear.weight.data.copy_(torch.from_numpy(form.read(source, name).weight.dequantize()))
        linear.register_forward_pre_hook(
            lambda _, args, name=name: largest.__setitem__(name, float(args[0].abs().max()))
        )
    with torch.no_grad():
        model(input_ids=torch.from_numpy(TOKENS))
    for name in layers:
        scale = form.read(source, name).input_scale
        assert scale is not None
        assert math.isclose(scale * 127.5, largest[name], rel_tol=0.05), name


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
@pytest.mark.parametrize("weights", ["channel", "tensor"])
def test_every_level_runs_on_integers(level: str, weights: str, tmp_path: Path) -> None:
    recipe = smoothquant(level=level, weights=weights)  # type: ignore[arg-type]
    result = subbyte.quantize(MINI, recipe, tmp_path / "out", calibration=TOKENS)
    assert result.verified is not None
    assert 8 <= result.bits_per_weight < 8.3
    with torch.no_grad():
        expected, found = (
            load(folder)(input_ids=torch.from_numpy(TOKENS)).logits for folder in (MINI, tmp_path / "out")
        )
    assert float((found - expected).norm() / expected.norm()) < 0.1


def lost(outliers: Quality, recipe: Recipe) -> float:
    """How much of the float model's perplexity a recipe adds."""
    return math.exp(outliers.loss(recipe, samples=FEW) - outliers.float_loss) - 1


def test_keeps_the_perplexity_that_plain_w8a8_loses(outliers: Quality) -> None:
    assert lost(outliers, rtn(bits=8, group_size=0, activations="int8/tensor")) > 0.5
    assert lost(outliers, smoothquant()) < 0.01


@pytest.mark.parametrize("level", ["O2", "O3"])
def test_one_scale_for_all_tokens_needs_the_extra_sites(outliers: Quality, level: Literal["O2", "O3"]) -> None:
    """No norm can absorb the outliers in front of the down projections: as users of Llama report, a scale per tensor
    collapses there, and smoothing these inputs too brings it back."""
    norms, everywhere = (lost(outliers, smoothquant(level=level, extra_sites=extra)) for extra in (False, True))
    assert norms > 0.1
    assert everywhere < 0.03
    assert lost(outliers, smoothquant(extra_sites=True)) < everywhere
