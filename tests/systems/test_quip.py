"""QuIP: its sheet's checks that need more than the kernel (the others: tests/kernels/test_ldlq.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.oracles.ldlq import narrow
from tests.pipeline.mini import MINI, TOKENS

import subbyte
from subbyte.calibration import Statistics
from subbyte.checkpoint import Raw, Source, formats, load, write_json, write_shard
from subbyte.errors import CheckpointError, RangeError, SchemeError, SingularError, UnknownNameError
from subbyte.modules import QuantizedLinear
from subbyte.schemes import Scheme
from subbyte.solvers import Gptq, Ldlq
from subbyte.systems import quip
from subbyte.tensors import QuantizedLayer, Rotated, Rotation, Weight, rotate, unrotate

KINDS = pytest.mark.parametrize("kind", ["kronecker", "block", "hadamard"])


def layer(rows: int = 64, columns: int = 96, outliers: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A weight and inputs [400, columns], correlated; with `outliers` in columns where the inputs are large too."""
    random = np.random.default_rng(3)
    weight = (random.standard_normal((rows, columns)) * 0.02).astype(np.float32)
    x = random.standard_normal((400, columns)) @ (np.eye(columns) + 0.2 * random.standard_normal((columns, columns)))
    if outliers:
        weight[:, ::17] *= 30
        x[:, 5::19] *= 10
    return weight, x.astype(np.float32)


def statistics(x: np.ndarray) -> Statistics:
    return Statistics(len(x), gram=torch.from_numpy(x.T @ x))


def missed(solver: Ldlq | Gptq, text: str, weight: np.ndarray, x: np.ndarray) -> float:
    """|X (W - Q)^T|^2."""
    found = solver.solve(weight, Scheme.parse(text), statistics(x), "layer").tensor
    return float(np.square(x @ (found.dequantize() - weight).T, dtype=np.float64).sum())


def rotations(kind: Any, rows: int, columns: int) -> tuple[Rotation, Rotation]:
    signs = np.where(np.random.default_rng(0).random(columns) < 0.5, -1.5, 0.75).astype(np.float16)
    return Rotation(kind, columns, 7, signs), Rotation(kind, rows, 8)


@KINDS
@pytest.mark.parametrize("size", [1, 7, 8, 24, 44, 92, 100, 128, 344])
def test_a_rotation_is_orthogonal_and_comes_back(kind: Any, size: int) -> None:
    one = Rotation(kind, size, 5)
    matrix = one.forward(np.eye(size, dtype=np.float32)).astype(np.float64)
    assert np.abs(matrix @ matrix.T - np.eye(size)).max() < 1e-5
    x = np.random.default_rng(1).standard_normal((3, size)).astype(np.float32)
    np.testing.assert_allclose(one.backward(one.forward(x)), x, atol=1e-5)
    if kind != "hadamard" and size > 20:
        assert np.abs(matrix - Rotation(kind, size, 6).forward(np.eye(size, dtype=np.float32))).max() > 0.1


def test_every_column_and_row_of_a_block_has_its_own_rotation() -> None:
    """QuIP's sheet, A.3, by its definition: permute, along p by O1 of the column, along q by O2 of the row, permute."""
    one = Rotation("block", 60, 3)
    steps = one.steps()
    assert steps is not None
    (p, q), x = (6, 10), np.random.default_rng(0).standard_normal((4, 60)).astype(np.float32)
    assert steps.left.shape == (q, p, p)
    assert steps.right.shape == (p, q, q)
    expected = np.zeros((4, 60))
    for row, result in zip(x, expected, strict=True):
        grid = row[steps.before].reshape(p, q).astype(np.float64)
        for c in range(q):
            grid[:, c] = steps.left[c] @ grid[:, c]
        for r in range(p):
            grid[r] = steps.right[r] @ grid[r]
        result[:] = grid.ravel()[steps.after]
    np.testing.assert_allclose(one.forward(x), expected, atol=1e-5)
    every = [*steps.left, *steps.right]
    for i, matrix in enumerate(every):
        assert np.abs(matrix.astype(np.float64) @ matrix.T - np.eye(len(matrix))).max() < 1e-5
        assert np.linalg.det(matrix) > 0
        assert not any(np.array_equal(matrix, other) for other in every[:i])


def test_factors_of_two_are_rotations_by_uniform_angles() -> None:
    steps = Rotation("block", 2 * 1009, 1).steps()  # 1009 rotations of 2 x 2 beside two of 1009 x 1009
    assert steps is not None
    turns = steps.left if steps.left.shape[1] == 2 else steps.right
    assert turns.shape == (1009, 2, 2)
    np.testing.assert_allclose(turns[:, 0, 0], turns[:, 1, 1], atol=1e-6)
    np.testing.assert_allclose(turns[:, 0, 1], -turns[:, 1, 0], atol=1e-6)
    angles = np.sort(np.arctan2(turns[:, 1, 0], turns[:, 0, 0])) / (2 * np.pi) + 0.5
    # Kolmogorov and Smirnov's distance from the uniform distribution: above this once in a thousand draws
    assert np.abs(angles - (np.arange(1009) + 0.5) / 1009).max() < 1.95 / 1009**0.5


@KINDS
def test_rotating_changes_neither_the_weight_nor_its_proxy_loss(kind: Any) -> None:
    weight, x = layer(48, 88)
    inputs, outputs = rotations(kind, 48, 88)
    turned = rotate(weight, inputs, outputs)
    np.testing.assert_allclose(unrotate(turned, inputs, outputs), weight, atol=1e-6)
    rounded = np.round(weight, 2)
    vector = inputs.scales()
    moments = x.T @ x * vector * vector[:, None]
    moments = inputs.forward(np.ascontiguousarray(inputs.forward(moments).T)).astype(np.float64)
    away = (turned - rotate(rounded, inputs, outputs)).astype(np.float64)
    exact = np.square(x @ (weight - rounded).T, dtype=np.float64).sum()
    np.testing.assert_allclose((away @ moments * away).sum(), exact, rtol=1e-5)


@KINDS
def test_outliers_disappear_and_two_bits_are_enough(kind: Any) -> None:
    weight, x = layer(outliers=True)
    inputs, outputs = rotations(kind, *weight.shape)

    def peak(w: np.ndarray) -> float:
        return float(np.abs(w).max() / np.sqrt(np.square(w).mean()))

    assert peak(rotate(weight, inputs, outputs)) < 0.7 * peak(weight)
    rotated = missed(Ldlq(kind, rescale=True), "int2/tensor/asym/float_zero/f32", weight, x)
    plain = missed(Ldlq("none", rescale=False), "int2/tensor/asym/float_zero/f32", weight, x)
    assert rotated < plain / 10


@pytest.mark.parametrize("rounding", ["ldlqRG", "allbal"])
def test_every_rounding_beats_nearest(rounding: Any) -> None:
    weight, x = layer()
    text = "int3/tensor/asym/float_zero/f32"
    nearest = missed(Ldlq(rounding="nearest"), text, weight, x)
    fed = missed(Ldlq(), text, weight, x)
    assert fed < nearest
    assert missed(Ldlq(rounding=rounding, passes=10), text, weight, x) < nearest
    assert missed(Ldlq(passes=10), text, weight, x) < fed


def test_without_incoherence_the_rows_keep_their_grids_and_the_layer_its_codes() -> None:
    weight, x = layer()
    found = Ldlq("none", rescale=False).solve(weight, Scheme.parse("int4/channel/asym/f32"), statistics(x))
    assert not isinstance(found.tensor, Rotated)
    ours = missed(Ldlq("none", rescale=False), "int4/channel/asym/f32", weight, x)
    assert (
        0.8 < ours / missed(Gptq(damp=0.02), "int4/channel/asym/f32", weight, x) < 1.25
    )  # the order of columns differs


@KINDS
@pytest.mark.parametrize(
    "text", ["int2/tensor/asym/float_zero/f32", "e8p2/tensor/f32", "e8p3/tensor/f32", "e8p4/tensor/f32"]
)
def test_the_layer_computes_what_its_tensor_stands_for(kind: Any, text: str) -> None:
    weight, x = layer(44, 96)
    tensor = Ldlq(kind).solve(weight, Scheme.parse(text), statistics(x), "layer").tensor
    bias = torch.randn(44)
    module = QuantizedLinear(QuantizedLayer(tensor), bias)
    assert "rotated=True" in repr(module)
    expected = x @ tensor.dequantize().astype(np.float64).T + bias.numpy()
    for count in (1, 5, 40):
        got = module(torch.from_numpy(x[:count]))
        np.testing.assert_allclose(got.numpy(), expected[:count], rtol=1e-4, atol=1e-4)
    halves = module(torch.from_numpy(x[:5]).half())
    assert halves.dtype == torch.float16
    np.testing.assert_allclose(halves.float().numpy(), expected[:5], rtol=4e-3, atol=4e-3)
    # the codes themselves are what runs
    module.words ^= 1
    assert not np.allclose(module(torch.from_numpy(x[:5])).numpy(), expected[:5], atol=1e-3)


@pytest.mark.parametrize(
    "options", [{}, {"incoherence": "block"}, {"incoherence": "hadamard"}, {"incoherence": "none", "bits": 3}], ids=str
)
def test_what_is_written_runs_as_what_was_solved(options: dict[str, Any], tmp_path: Path) -> None:
    result = subbyte.quantize(MINI, quip(**options), tmp_path / "out", calibration=TOKENS)
    assert result.verified is not None
    source = Source.open(tmp_path / "out")
    form = formats.detect(source.config)
    assert form is not None
    rotated = options.get("incoherence") != "none"
    name = form.layers(source)[0]
    assert isinstance(form.read(source, name).weight, Rotated) == rotated
    if rotated:
        assert form.name == "subbyte"
        again = subbyte.quantize(MINI, quip(**options, seed=1), calibration=TOKENS[:1], verify=False)
        other = again.get_submodule(name)
        assert not torch.equal(other.words, torch.from_numpy(np.array(form.read(source, name).weight.dense.words)))
    with torch.no_grad():
        logits = load(tmp_path / "out")(input_ids=torch.from_numpy(TOKENS[:2])).logits
    assert torch.isfinite(logits).all()


NATIVE = formats.get("subbyte")


def written(folder: Path, tensor: Weight, **others: Raw | None) -> Source:
    """A checkpoint of one layer, with other tensors in the place of some of its own; None leaves one out."""
    tensors = NATIVE.tensors("a", QuantizedLayer(tensor), "f32") | {f"a.{name}": raw for name, raw in others.items()}
    write_shard(folder / "subbyte.safetensors", {name: raw for name, raw in tensors.items() if raw is not None})
    config = NATIVE.config({"a": (tensor.scheme, None)})
    write_json(folder / "config.json", {"architectures": ["A"], "quantization_config": config})
    return Source.open(folder)


@KINDS
@pytest.mark.parametrize("shape", [(44, 96), (92, 184)])
def test_what_is_read_back_runs_to_the_bit_and_takes_the_bytes_that_it_says(
    kind: Any, shape: tuple[int, int], tmp_path: Path
) -> None:
    """92 and 184 have no Hadamard matrix."""
    weight, x = layer(*shape)
    tensor = Ldlq(kind, rescale=kind == "block").solve(weight, Scheme.parse("e8p2/tensor/f32"), statistics(x)).tensor
    source = written(tmp_path, tensor)
    back = NATIVE.read(source, "a")
    assert isinstance(tensor, Rotated)
    assert isinstance(back.weight, Rotated)
    assert back.weight.inputs.kind == back.weight.outputs.kind == kind
    np.testing.assert_array_equal(back.weight.dequantize(), tensor.dequantize())
    stored = sum(source.nbytes(f"a.{part}") for part in NATIVE.parts if f"a.{part}" in source)
    assert stored == tensor.nbytes + 16  # its shape
    vectors = {"kronecker": 0, "block": 2 * shape[1], "hadamard": 2 * sum(shape)}[kind]
    assert tensor.nbytes - tensor.dense.nbytes == vectors + {"kronecker": 16, "block": 32, "hadamard": 0}[kind]
    rows = torch.from_numpy(x[:7])
    got = QuantizedLinear(back)(rows)
    assert torch.equal(got, QuantizedLinear(QuantizedLayer(tensor))(rows))
    np.testing.assert_allclose(got.numpy(), x[:7] @ tensor.dequantize().T, rtol=1e-4, atol=1e-4)


def test_a_file_with_half_a_rotation_is_refused(tmp_path: Path) -> None:
    weight, x = layer(44, 96)
    tensor = Ldlq("hadamard").solve(weight, Scheme.parse("e8p2/tensor/f32"), statistics(x)).tensor
    with pytest.raises(CheckpointError, match="two rotations"):
        NATIVE.read(written(tmp_path, tensor, output_vector=None), "a")


@pytest.mark.parametrize("told", [[3, 2], [3, 1, 1], []], ids=str)
def test_a_file_with_an_unknown_rotation_is_refused(told: list[int], tmp_path: Path) -> None:
    weight, x = layer(44, 96)
    tensor = Ldlq("block").solve(weight, Scheme.parse("e8p2/tensor/f32"), statistics(x)).tensor
    with pytest.raises(CheckpointError, match="a seed and 1"):
        NATIVE.read(written(tmp_path, tensor, input_seed=Raw("I64", np.array(told, np.int64))), "a")


def test_what_cannot_be_had_is_refused() -> None:
    weight, x = layer(44, 92)
    seen = statistics(x)
    with pytest.raises(RangeError, match="n: given 4099"):
        Rotation("hadamard", 4099)
    with pytest.raises(UnknownNameError, match="fourier"):
        Rotation("fourier", 4096)  # type: ignore[arg-type]
    for solver, text in [
        (Ldlq(), "e8p2/tensor/f32"),
        (Ldlq(), "int4/g4/asym/f32"),
        (Ldlq(rounding="ldlqRG"), "e8p2/tensor/f32"),
        (Ldlq(rounding="stochastic"), "e8p2/tensor/f32"),
    ]:
        with pytest.raises(SchemeError):
            solver.solve(weight, Scheme.parse(text), seen)
    with pytest.raises(SchemeError, match="integers"):
        Gptq().solve(weight, Scheme.parse("e8p2/tensor/f32"), seen)
    singular = Statistics(2, gram=torch.ones(92, 92))
    with pytest.raises(SingularError):
        Ldlq("none", ridge=0, damp=0, damp_retries=0).solve(weight, Scheme.parse("int2/channel/asym/f32"), singular)


def test_a_hessian_that_f64_can_factor_needs_no_damping() -> None:
    seen = Statistics(400, gram=torch.from_numpy(narrow(128)))
    weight, _ = layer(16, 128)
    exact = Ldlq("none", rescale=False, ridge=0, damp=0)
    found = exact.solve(weight, Scheme.parse("int4/channel/asym/f32"), seen)
    assert found.note == ""
    assert (
        "damping raised"
        in replace(exact, damp_retries=3)
        .solve(weight, Scheme.parse("int4/channel/asym/f32"), Statistics(2, gram=torch.ones(128, 128)))
        .note
    )


def test_without_tokens_the_nearest_codes_and_a_note() -> None:
    weight, _ = layer()
    found = Ldlq().solve(weight, Scheme.parse("int4/tensor/asym/float_zero/f32"), Statistics(0))
    assert "no calibration tokens" in found.note
    assert np.abs(found.tensor.dequantize() - weight).max() < 0.3 * np.abs(weight).max()
