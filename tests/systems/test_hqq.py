"""HQQ: its sheet's checks that need more than the kernel (the others: tests/kernels/test_half_quadratic.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.pipeline.mini import MINI, TOKENS
from tests.systems.quality import Quality

import subbyte
from subbyte import kernels
from subbyte.checkpoint import Source, formats, load
from subbyte.modules import QuantizedLinear
from subbyte.schemes import Scheme
from subbyte.solvers import HalfQuadratic, Nearest
from subbyte.systems import hqq, rtn
from subbyte.tensors import QuantizedLayer

WEIGHT = (np.random.default_rng(8).standard_normal((48, 256)) * 0.02).astype(np.float32)


def fine(bits: int, floats: bool = True) -> Scheme:
    return Scheme.parse(f"int{bits}/g64/asym{'/float_zero' if floats else ''}/f32")


def missed(solver: HalfQuadratic | Nearest, bits: int, weight: np.ndarray = WEIGHT) -> float:
    tensor = solver.solve(weight, fine(bits, isinstance(solver, HalfQuadratic))).tensor
    return float(np.abs(tensor.dequantize() - weight).mean(dtype=np.float64))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_the_mean_error_is_below_that_of_rounding_to_nearest(bits: int) -> None:
    assert missed(HalfQuadratic(), bits) < missed(HalfQuadratic(steps=0), bits)
    assert missed(HalfQuadratic(), bits) < missed(Nearest(), bits)
    assert missed(HalfQuadratic(best=True), bits) <= missed(HalfQuadratic(), bits) * (1 + 1e-6)


@pytest.mark.parametrize("factor", [2.0**-4, 2.0**6])
def test_only_normalized_errors_follow_a_scaled_weight(factor: float) -> None:
    """The sheet's "important numeric fact": the released shrinkage is idle for small weights and not for large ones."""
    codes = [
        HalfQuadratic(normalize=on, beta=1.0).solve(WEIGHT * np.float32(scaled), fine(2)).tensor.codes()
        for on in (True, False)
        for scaled in (1.0, factor)
    ]
    assert (codes[0] != codes[1]).mean() < 1e-3  # powers of the mean are rounded
    assert factor < 1 or (codes[2] != codes[3]).any()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_a_layer_computes_what_its_codes_stand_for(bits: int, dtype: str) -> None:
    """Check 9, in every width; zero points are those that the scale dtype holds."""
    scheme = Scheme.parse(f"int{bits}/g64/asym/float_zero/{dtype}")
    tensor = HalfQuadratic().solve(WEIGHT, scheme).tensor
    x = torch.from_numpy(np.random.default_rng(9).standard_normal((5, 256)).astype(np.float32))
    expected = x.double() @ torch.from_numpy(tensor.dequantize()).double().T
    found = QuantizedLinear(QuantizedLayer(tensor))(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_what_is_written_runs_as_what_was_solved(tmp_path: Path) -> None:
    """Check 9 after save and load; compressed-tensors cannot hold float zero points, so the format is our own."""
    result = subbyte.quantize(MINI, hqq(bits=3, group_size=32), tmp_path / "out")
    assert result.verified is not None
    source = Source.open(tmp_path / "out")
    form = formats.detect(source.config)
    assert form is not None
    assert form.name == "subbyte"
    for name in form.layers(source)[:3]:
        weight = Source.open(MINI).read(f"{name}.weight").float().numpy()
        kept = form.read(source, name).weight
        solved = HalfQuadratic().solve(weight, kept.scheme).tensor
        np.testing.assert_array_equal(kept.words, solved.words)
        np.testing.assert_array_equal(kept.zero, solved.zero)
        assert kept.bits_per_weight == 3 + 2 * 16 / 32
    with torch.no_grad():
        logits = load(tmp_path / "out")(input_ids=torch.from_numpy(TOKENS[:2])).logits
    assert torch.isfinite(logits).all()


def test_the_released_defaults() -> None:
    recipe = hqq()
    assert str(recipe.weights) == "int4/g64/asym/float_zero"
    assert recipe.solver == HalfQuadratic(0.7, 10.0, 1.01, 20, stop=True, best=False, round_zero=True)
    assert not hqq(bits=3).solver.round_zero  # type: ignore[attr-defined]
    assert hqq(optimize=False).solver.steps == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("bits", [4, 3])
def test_beats_round_to_nearest_without_data(llama: Quality, bits: int) -> None:
    assert llama.loss(hqq(bits=bits)) < llama.loss(rtn(bits=bits, group_size=64))


def test_kernel_and_solver_agree() -> None:
    codes, scale, zero, _ = kernels.half_quadratic(WEIGHT, 4, group=64)
    tensor = HalfQuadratic().solve(WEIGHT, fine(4)).tensor
    np.testing.assert_array_equal(tensor.codes(), codes)
    np.testing.assert_array_equal(tensor.scale, scale)
    np.testing.assert_array_equal(tensor.zero, zero)
