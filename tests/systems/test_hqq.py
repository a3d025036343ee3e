"""HQQ: its sheet's checks that need more than the kernel (the others: tests/kernels/test_half_quadratic.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.pipeline.mini import MINI, TOKENS
from tests.systems.quality import Quality

import subbyte
from subbyte import kernels
from subbyte.checkpoint import Source, formats, load
from subbyte.errors import ShapeError
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


def by_columns(weight: np.ndarray, scheme: str, **options: Any) -> np.ndarray:
    """What the solver makes of the transposed weight by rows."""
    found = HalfQuadratic(**options).solve(np.ascontiguousarray(weight.T), Scheme.parse(scheme)).tensor
    return found.dequantize().T


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("levels", ["", "/s8z8r16", "/s8r16", "/z8r16"])
@pytest.mark.parametrize("rows", [1, 12])
def test_axis_0_and_quantized_scales_run_on_their_codes(bits: int, levels: str, rows: int) -> None:
    """Axis 0 is the transposed problem; the layer multiplies packed codes, and keeps what the tensor counts."""
    weight = WEIGHT[:32, :128]
    tensor = HalfQuadratic().solve(weight, Scheme.parse(f"int{bits}/g16/by_input/asym/float_zero{levels}/f16")).tensor
    np.testing.assert_array_equal(tensor.dequantize(), by_columns(weight, f"int{bits}/g16/asym/float_zero{levels}/f16"))
    layer = QuantizedLinear(QuantizedLayer(tensor))
    x = torch.from_numpy(np.random.default_rng(9).standard_normal((rows, 128)).astype(np.float32))
    torch.testing.assert_close(
        layer(x).double(), x.double() @ torch.from_numpy(tensor.dequantize()).double().T, rtol=1e-4, atol=1e-4
    )
    assert layer.nbytes == tensor.nbytes


@pytest.mark.parametrize("scheme", ["int2/g16/asym/float_zero", "int2/g16/by_input/asym/float_zero"])
def test_quantized_scales_and_zero_points_cost_little_and_save_bits(scheme: str) -> None:
    weight = (np.random.default_rng(4).standard_normal((256, 256)) * 0.02).astype(np.float32)
    plain, both = (
        HalfQuadratic().solve(weight, Scheme.parse(scheme + end)).tensor for end in ("/f16", "/s8z8r128/f16")
    )
    assert plain.bits_per_weight == 4
    assert both.bits_per_weight == 3 + 2 * 2 * 16 / (16 * 128)
    lost = [float(np.square(tensor.dequantize() - weight).mean()) for tensor in (plain, both)]
    assert lost[0] < lost[1] * 1.02 < lost[0] * 1.08


def test_equal_scales_survive_the_second_level() -> None:
    """Check 5 on two levels: equal groups, whose scales have no range; a weight of zeros comes back as zeros."""
    row = WEIGHT[:1].repeat(16, axis=0)
    for weight in (row, np.zeros_like(row), row * np.float32(1e-3)):
        one = HalfQuadratic().solve(weight, Scheme.parse("int4/g64/asym/float_zero/f16")).tensor.dequantize()
        two = HalfQuadratic().solve(weight, Scheme.parse("int4/g64/asym/float_zero/s8z8r16/f16")).tensor.dequantize()
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("options", [{"axis": 0}, {"axis": 0, "scale_bits": 8, "zero_bits": 8}, {"scale_bits": 8}])
def test_both_axes_and_two_levels_load_back(tmp_path: Path, options: dict[str, Any]) -> None:
    """Check 9 for both axes: the run compares the logits of what it wrote with its own, on packed codes."""
    result = subbyte.quantize(MINI, hqq(bits=3, group_size=16, run=16, **options), tmp_path / "out")
    assert result.verified is not None
    source = Source.open(tmp_path / "out")
    form = formats.detect(source.config)
    assert form is not None
    name = form.layers(source)[0]
    weight = form.read(source, name).weight
    assert weight.scheme.by_input == (options.get("axis") == 0)
    stored = sum(source.nbytes(f"{name}.{part}") for part in form.parts if f"{name}.{part}" in source)
    assert stored == weight.nbytes + 16  # the shape


def test_axis_0_needs_groups_that_divide_the_outputs(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="group size of"):
        subbyte.quantize(MINI, hqq(axis=0, group_size=96), tmp_path / "out")
    with pytest.raises(ShapeError, match="rows of a run"):
        subbyte.quantize(MINI, hqq(axis=0, group_size=32, scale_bits=8, run=1024), tmp_path / "out")


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
