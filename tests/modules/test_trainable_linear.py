"""TrainableLinear: the weight that its tensor stands for, slopes of that weight, and the tensor again with what was
learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.modules.test_quantized_linear import decomposed, quantized
from tests.systems.test_vptq import TEXTS, layer, solved, statistics

from subbyte.modules import TrainableLinear
from subbyte.schemes import Scheme
from subbyte.solvers import HalfQuadratic, Ldlq, Vptq
from subbyte.tensors import QuantizedLayer, QuantizedTensor

INTEGERS = ["int4/g32", "int3/g32/asym", "int4/channel/asym/f16", "int4/tensor", "int2/g32/asym/float_zero/bf16"]

#: One of scales and zero points, or both, in codes of their own, which do not learn.
LEVELS = [f"int4/g32/asym/float_zero/{level}/f16" for level in ("s8r8", "z8r8", "s3z3r8")]


def tensor(text: str) -> Any:
    if text in LEVELS:
        weight, x = layer(64, 64)
        return HalfQuadratic().solve(weight, Scheme.parse(text), statistics(x)).tensor
    if text.startswith("v"):
        return solved(Vptq(tune=0, iterations=5), text, *layer(46, 40))
    if text.startswith("e8p"):
        weight, x = layer(48, 64)
        solver = Ldlq(incoherence="hadamard", spread=1 / 0.9, damp=0.0)
        return solver.solve(weight, Scheme.parse(f"{text}/tensor/f32"), statistics(x)).tensor
    if text == "by input":
        weight, _ = layer(64, 40)
        return QuantizedTensor.transposed(quantized("int4/g32/asym", 40, 64))
    if text == "order":
        return quantized("int4/g32/asym", act_order=True)
    if "float_zero" in text:
        plain = quantized("int2/g32/asym")
        zero = (plain.zeros() + np.float32(0.25)).astype(np.float32)
        scheme = Scheme.parse(text)
        return QuantizedTensor(scheme, plain.shape, plain.words, scheme.held(plain.scales()), scheme.held(zero))
    return decomposed("int4/g32") if text == "outliers" else quantized(text)


@pytest.mark.parametrize("text", [*INTEGERS, *LEVELS, "order", "by input", "outliers", *TEXTS, "e8p2", "e8p3"])
def test_the_weight_is_what_the_tensor_stands_for_and_comes_back(text: str) -> None:
    given = tensor(text)
    rows, columns = given.shape
    linear = torch.nn.Linear(columns, rows)
    module = TrainableLinear(QuantizedLayer(given), linear)
    np.testing.assert_allclose(module.weight().detach(), given.dequantize(), rtol=2e-6, atol=2e-6)
    x = torch.randn(3, columns)
    expected = torch.nn.functional.linear(x, torch.from_numpy(given.dequantize()), linear.bias)
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(module.layer().weight.dequantize(), given.dequantize())
    assert module.layer().nbytes == given.nbytes


@pytest.mark.parametrize("text", [*INTEGERS, *LEVELS[:2], "order", "by input", *TEXTS, "e8p2"])
def test_what_is_learned_is_what_is_stored(text: str) -> None:
    """A step along each slope, a hundredth of the values: the tensor that comes back stands for the moved weight."""
    given = tensor(text)
    rows, columns = given.shape
    module = TrainableLinear(QuantizedLayer(given), torch.nn.Linear(columns, rows))
    assert set(module.floats) == set(given.floats())
    wanted = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)) * given.dequantize().std()
    loss = (module.weight() - wanted).square().sum()
    loss.backward()
    for name, values in module.floats.items():
        assert values.grad is not None, name
        assert values.grad.any(), name
        step = 1e-2 * values.detach().abs().mean() / values.grad.abs().max()
        values.data -= step * values.grad
    assert (module.weight() - wanted).square().sum() < loss
    found, moved = module.layer().weight.dequantize(), module.weight().detach().numpy()
    np.testing.assert_allclose(found, moved, rtol=1e-2, atol=5e-3 * np.abs(moved).max())
    assert not np.array_equal(found, given.dequantize())


def test_slopes_are_those_of_the_outputs() -> None:
    """Beside finite differences, along random directions; the loss is quadratic in each float."""
    given = tensor("v6k64r16c3o4v5k16n")
    rows, columns = given.shape
    module = TrainableLinear(QuantizedLayer(given), torch.nn.Linear(columns, rows)).double()
    x = torch.randn(50, columns, dtype=torch.float64)
    module(x).square().sum().backward()
    for name, values in module.floats.items():
        assert values.grad is not None
        way = torch.randn_like(values)
        with torch.no_grad():
            ends = []
            for step in (-1e-3, 1e-3):
                values += step * way
                ends.append(module(x).square().sum())
                values -= step * way
        torch.testing.assert_close(
            (ends[1] - ends[0]) / 2e-3, (values.grad * way).sum(), rtol=1e-5, atol=1e-5, msg=name
        )
