"""PowerQuant: the checks of its sheet (nupes.md), on drawn weights and on a tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.pipeline.mini import MINI

import subbyte
from subbyte import kernels
from subbyte.checkpoint import Source, formats
from subbyte.schemes import Power, Scheme
from subbyte.solvers import Nearest, PowerSearch, Solved
from subbyte.solvers.power_search import errors
from subbyte.systems import powerquant
from subbyte.tensors import TableTensor

FOUR = Scheme.parse("power4/channel/f32")


def normal(rows: int = 8, columns: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def table(solved: Solved) -> TableTensor:
    assert isinstance(solved.tensor, TableTensor)
    return solved.tensor


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_exponent_one_is_the_symmetric_uniform_quantizer(bits: int) -> None:
    weight = normal()
    ours = table(PowerSearch(exponent=1.0).solve(weight, Scheme.parse(f"power{bits}/channel/f32")))
    plain = Nearest().solve(weight, Scheme.parse(f"int{bits}/channel/narrow/f32")).tensor
    np.testing.assert_array_equal(ours.codes(), plain.codes())  # type: ignore[union-attr]
    np.testing.assert_allclose(ours.dequantize(), plain.dequantize(), rtol=1e-6, atol=1e-7)


def test_codes_are_odd_monotone_and_free_of_units() -> None:
    weight = np.sort(normal(4, 200), axis=1)
    solver = PowerSearch(exponent=0.6)
    found = table(solver.solve(weight, FOUR))
    assert (np.diff(found.codes().astype(int), axis=1) >= 0).all()
    middle = 8
    mirrored = table(solver.solve(-weight, FOUR))
    np.testing.assert_array_equal(mirrored.codes().astype(int) - middle, middle - found.codes().astype(int))
    largest = np.abs(weight).argmax(axis=1)
    rows = np.arange(4)
    assert set(np.abs(found.codes()[rows, largest].astype(int) - middle)) == {7}
    np.testing.assert_array_equal(found.dequantize()[rows, largest], weight[rows, largest])
    for factor in (0.25, 8.0):  # powers of two: no rounding on the way
        scaled = table(solver.solve(weight * np.float32(factor), FOUR))
        np.testing.assert_array_equal(scaled.codes(), found.codes())
        np.testing.assert_array_equal(scaled.dequantize(), found.dequantize() * np.float32(factor))


def test_an_empty_channel_decodes_to_zeros() -> None:
    weight = normal()
    weight[3] = 0
    for solver in (PowerSearch(), PowerSearch(clip_search=True)):
        assert not table(solver.solve(weight, FOUR)).dequantize()[3].any()


def test_the_error_of_an_exponent_is_exact() -> None:
    weight, scheme = normal(6, 96, 1), Scheme.parse("power4/g32/f32")
    for exponent in (0.3, 0.7, 1.2):
        fixed = table(PowerSearch(exponent=exponent).solve(weight, scheme))
        expected = np.square(fixed.dequantize().astype(np.float64) - weight).sum()
        # the exponent is stored in f16: ask for that one
        got = errors(weight, fixed.scale, 4, np.array([float(np.float16(exponent))]))
        assert got[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "low", "high", "error", "uniform"),
    [("standard_normal", 0.63, 0.73, 0.0183, 0.0248), ("laplace", 0.50, 0.60, 0.0304, 0.0667)],
)
def test_exponents_of_drawn_weights(kind: str, low: float, high: float, error: float, uniform: float) -> None:
    """The table of the sheet: rows of 4096, 4 bits, scales of rows; errors relative to the energy."""
    weight = getattr(np.random.default_rng(0), kind)(size=(64, 4096)).astype(np.float32)
    found, plain = table(PowerSearch().solve(weight, FOUR)), table(PowerSearch(exponent=1.0).solve(weight, FOUR))
    assert found.exponent is not None
    assert low <= float(found.exponent[0]) <= high
    size = float(np.square(weight).sum())
    assert np.square(found.dequantize() - weight).sum() / size == pytest.approx(error, rel=0.04)
    assert np.square(plain.dequantize() - weight).sum() / size == pytest.approx(uniform, rel=0.04)


def test_each_scope_finds_no_more_error_than_a_wider_one() -> None:
    weight = normal(16, 128, 2) ** 3
    by_scope = {
        scope: PowerSearch(scope).solve(weight, Scheme.parse(f"power4{'r' * (scope == 'channel')}/channel/f32")).loss  # type: ignore[arg-type]
        for scope in ("layer", "channel")
    }
    assert by_scope["channel"] <= by_scope["layer"] * 1.001
    assert by_scope["layer"] <= PowerSearch(exponent=1.0).solve(weight, FOUR).loss
    two = Scheme.parse("power2/channel/f32")
    assert PowerSearch(clip_search=True).solve(weight, two).loss < 0.7 * PowerSearch().solve(weight, two).loss


def test_squares_make_integer_products_exact() -> None:
    """a = 1/2 at 4 bits: values are q |q| / 49, so that an integer product of these is the product of the decoded."""
    q, p = (np.random.default_rng(seed).integers(-7, 8, (5, 33)) for seed in (0, 1))
    values = Power(4).values(np.float32([0.5]))[0].astype(np.float64)
    exact = values[q + 8] @ values[p + 8].T
    squares = [(codes * np.abs(codes)).astype(np.int8) for codes in (q, p)]
    assert max(np.abs(one).max() for one in squares) <= 49
    product = kernels.w8a8(squares[0], squares[1], np.ones(5, np.float32), np.ones(5, np.float32))
    np.testing.assert_allclose(product / 49**2, exact, rtol=1e-6)
    np.testing.assert_array_equal(product, squares[0].astype(int) @ squares[1].astype(int).T)


def test_one_exponent_for_the_whole_model(tmp_path: Path) -> None:
    result = subbyte.quantize(MINI, powerquant(), tmp_path / "out")
    assert result.verified is not None
    source = Source.open(tmp_path / "out")
    form = formats.detect(source.config)
    assert form is not None
    weights = [form.read(source, name).weight for name in form.layers(source)]
    found = {float(weight.exponent[0]) for weight in weights if isinstance(weight, TableTensor)}  # type: ignore[index]
    assert len(found) == 1
    float_source, total = Source.open(MINI), {}
    for a in sorted({0.5, 1.0, *found}):
        total[a] = sum(
            PowerSearch(exponent=a).solve(float_source.read(f"{name}.weight").float().numpy(), weight.scheme).loss
            for name, weight in zip(form.layers(source), weights, strict=True)
        )
    assert min(total, key=total.__getitem__) in found
