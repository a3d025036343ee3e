"""DMMV: the largest error of an output falls, the mean square with it, kept weights stay, and codes make a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.pipeline.mini import MINI, TOKENS

import subbyte
from subbyte.anatomy import find
from subbyte.calibration import Statistics, Stream, measure
from subbyte.calibration.text import tokens
from subbyte.checkpoint import Source
from subbyte.errors import SchemeError
from subbyte.pipeline import Result
from subbyte.schemes import Scheme
from subbyte.solvers import Gptq, MinMax, Nearest
from subbyte.systems import dmmv
from subbyte.tensors import Decomposition

CHANNEL = Scheme.parse("int3/channel/asym/f32")


def problem(rows: int = 24, columns: int = 96, seen: int = 400) -> tuple[np.ndarray, np.ndarray, Statistics]:
    """A weight, and correlated inputs with their statistics."""
    random = np.random.default_rng(0)
    mix = random.standard_normal((columns, columns)) / 8 + np.eye(columns)
    x = (random.standard_normal((seen, columns)) @ mix).astype(np.float32)
    weight = random.standard_normal((rows, columns)).astype(np.float32)
    return weight, x, Statistics(len(x), torch.from_numpy(x.T @ x), sample=torch.from_numpy(x))


def worst(weight: np.ndarray, found: np.ndarray, x: np.ndarray) -> np.ndarray:
    """t of every row, in f64."""
    difference = found.astype(np.float64) - weight
    return np.abs(difference @ x.T.astype(np.float64)).max(axis=1)


@pytest.mark.parametrize(("start", "least"), [("nearest", 0.2), ("gptq", 0.1)])
@pytest.mark.parametrize("text", ["int3/channel/asym/f32", "int2/channel/asym/f32", "int3/channel/f32"])
def test_the_largest_error_falls_and_the_squares_do_not_rise(start: str, least: float, text: str) -> None:
    weight, x, stats = problem()
    scheme = Scheme.parse(text)
    begun = (Gptq() if start == "gptq" else Nearest()).solve(weight, scheme, stats).tensor.dequantize()
    found = MinMax(start=start, iterations=30).solve(weight, scheme, stats)  # type: ignore[arg-type]
    before, after = worst(weight, begun, x), worst(weight, found.tensor.dequantize(), x)
    assert (after <= before * (1 + 1e-5)).all()
    assert after.mean() < (1 - least) * before.mean()
    squares = [np.square((w - weight) @ x.T).sum(axis=1) for w in (begun, found.tensor.dequantize())]
    assert (squares[1] <= squares[0] * (1 + 1e-4)).all()
    assert found.loss == pytest.approx(squares[1].sum() / len(x), rel=1e-3)


def test_kept_weights_stay_and_their_rows_gain() -> None:
    weight, x, stats = problem()
    weight[::5, 7] *= 20
    plain = MinMax().solve(weight, CHANNEL, stats).tensor.dequantize()
    tensor = MinMax(outliers=0.01).solve(weight, CHANNEL, stats).tensor
    assert isinstance(tensor, Decomposition)
    kept = tensor.dequantize()
    mask = np.abs(weight) >= np.sort(np.abs(weight).ravel())[-24]
    assert mask.sum() == 24  # ceil(1 % of 2304)
    np.testing.assert_allclose(kept[mask], weight[mask], rtol=1e-3)
    assert worst(weight, kept, x)[::5].mean() < 0.5 * worst(weight, plain, x)[::5].mean()


def test_few_tokens_are_those_of_the_largest_norm() -> None:
    weight, x, stats = problem()
    x[::7] *= 5
    stats = Statistics(len(x), torch.from_numpy(x.T @ x), sample=torch.from_numpy(x))
    some = Statistics(stats.tokens, stats.gram, sample=torch.from_numpy(x[::7].copy()))
    few = MinMax(tokens=len(x[::7])).solve(weight, CHANNEL, stats).tensor
    np.testing.assert_array_equal(few.dequantize(), MinMax().solve(weight, CHANNEL, some).tensor.dequantize())


def test_without_tokens_and_with_other_schemes() -> None:
    weight, _, stats = problem()
    found = MinMax().solve(weight, CHANNEL, Statistics(0, torch.zeros(96, 96), sample=torch.zeros(0, 96)))
    np.testing.assert_array_equal(found.tensor.dequantize(), Nearest().solve(weight, CHANNEL).tensor.dequantize())
    assert "no calibration tokens" in found.note
    for text in ("int4/g32/f32", "int4/channel/asym/float_zero/f32"):
        with pytest.raises(SchemeError, match="integers per channel"):
            MinMax().solve(weight, Scheme.parse(text), stats)


def test_a_model_is_quantized_and_reads_back(tmp_path: Path) -> None:
    for share in (0.0, 0.01):
        out = tmp_path / f"{share}"
        result = subbyte.quantize(MINI, dmmv(bits=3, iterations=2, outliers=share), out, calibration=TOKENS)
        assert isinstance(result, Result)
        assert result.verified is not None
        assert result.verified < 1e-3
        assert result.bits_per_weight < 3.5 + 32 * share


def test_the_worst_output_of_a_trained_model(shared: Callable[[str], Path]) -> None:
    """On a block of a trained model, on its own inputs: less by a fifth than rounding, by a tenth than GPTQ."""
    folder = shared("models/llama")
    source = Source.open(folder)
    stream = Stream(source.config, find(source.config, {n: source.shape(n) for n in source.names()}), source.read)
    hidden = stream.embed(tokens(shared("data/calibration.txt"), folder, 4, 256, 0))
    block = stream.block(0)
    name = "model.layers.0.mlp.up_proj"
    stats = measure(block, hidden, [name], {"gram", "sample"})[name]
    weight = block.get(name).weight.detach().numpy()[:128].copy()  # type: ignore[union-attr]
    x = np.asarray(stats.sample)
    x = x[np.argsort(-np.square(x).sum(1))[:512]]
    for start, least in (("nearest", 0.2), ("gptq", 0.1)):
        begun = (Gptq() if start == "gptq" else Nearest()).solve(weight, CHANNEL, stats).tensor.dequantize()
        found = MinMax(start=start, iterations=30).solve(weight, CHANNEL, stats).tensor.dequantize()  # type: ignore[arg-type]
        assert worst(weight, found, x).mean() < (1 - least) * worst(weight, begun, x).mean()
