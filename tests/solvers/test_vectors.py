"""The vectors beside rotations, fitted: a least-squares solution at no further bit, and codes found anew under it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from subbyte.calibration import Statistics
from subbyte.errors import RecipeError
from subbyte.schemes import Scheme
from subbyte.solvers import Ldlq
from subbyte.solvers.base import missed
from subbyte.solvers.vectors import fit_vectors
from subbyte.tensors import Rotated

torch = pytest.importorskip("torch")
SCHEME = Scheme.parse("e8p2/tensor/f32")
SHARP = Ldlq(incoherence="hadamard", rescale=False, passes=2, spread=1 / 0.9, damp=0.0)


def layer(seed: int = 0, rows: int = 48, columns: int = 64) -> tuple[np.ndarray, Statistics]:
    """A weight, and inputs that are correlated and of very different sizes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((512, columns)) @ rng.standard_normal((columns, columns)) * np.exp(rng.normal(size=columns))
    gram = torch.from_numpy((x.T @ x).astype(np.float32))
    return rng.standard_normal((rows, columns)).astype(np.float32), Statistics(tokens=len(x), gram=gram)


def loss(weight: np.ndarray, tensor: Rotated, stats: Statistics) -> float:
    missed = weight.astype(np.float64) - tensor.dequantize()
    return float(np.einsum("oi,ij,oj->", missed, np.asarray(stats.hessian, np.float64), missed)) / 2


def test_fitted_vectors_are_where_the_loss_is_flat() -> None:
    weight, stats = layer()
    before = SHARP.solve(weight, SCHEME, stats).tensor
    assert isinstance(before, Rotated)
    after = fit_vectors(weight, before, np.asarray(stats.hessian), turns=30)
    fitted = loss(weight, after, stats)
    assert fitted < 0.97 * loss(weight, before, stats)
    assert np.isclose(missed(weight, after.dequantize(), np.asarray(stats.hessian)) / 2, fitted, rtol=1e-4)
    assert after.nbytes == before.nbytes
    np.testing.assert_array_equal(after.dense.codes(), before.dense.codes())
    for side in ("inputs", "outputs"):
        rotation = getattr(after, side)
        for place in (0, 7, 33):  # a step of 2 % either way, far above what 16 bits and the ridge move
            for factor in (0.98, 1.02):
                vector = rotation.vector.copy()
                vector[place] *= np.float16(factor)
                moved = replace(after, **{side: replace(rotation, vector=vector)})
                assert loss(weight, moved, stats) > fitted * (1 - 1e-5)


def test_a_layer_that_saw_few_inputs_keeps_the_vectors_that_nothing_tells() -> None:
    weight, stats = layer()
    assert stats.gram is not None
    gram = stats.gram.clone()
    gram[:, 5] = gram[5] = 0
    before = SHARP.solve(weight, SCHEME, Statistics(512, gram)).tensor
    assert isinstance(before, Rotated)
    after = fit_vectors(weight, before, np.asarray(Statistics(512, gram).hessian))
    assert after.inputs.vector is not None
    assert before.inputs.vector is not None
    assert after.inputs.vector[5] == before.inputs.vector[5]
    assert np.isfinite(after.dequantize()).all()


def test_refits_lower_the_loss_and_cost_nothing() -> None:
    weight, stats = layer(1)
    losses = []
    for refits in (0, 1, 3):
        solved = replace(SHARP, refits=refits).solve(weight, SCHEME, stats)
        assert isinstance(solved.tensor, Rotated)
        losses.append(loss(weight, solved.tensor, stats))
        if refits:
            assert np.isclose(solved.loss, losses[-1], rtol=1e-3)
    assert losses[0] > losses[1] >= losses[2]
    with pytest.raises(RecipeError, match="refits"):
        Ldlq(incoherence="none", refits=1)


def test_rows_of_one_size_are_rounded_alike() -> None:
    """With `level`, powers of two before the rows change no code; without, the small rows lose."""
    weight, stats = layer(rows=32)
    factor = np.exp2(np.tile([-3, -1, 1, 3], 8)).astype(np.float32)[:, None]

    def solved(weight: np.ndarray, level: bool) -> np.ndarray:
        return replace(SHARP, level=level).solve(weight, SCHEME, stats, "a").tensor.dequantize()

    np.testing.assert_array_equal(solved(weight * factor, True), solved(weight, True) * factor)
    lost = np.square(solved(weight * factor, False) / factor - weight).sum(1)
    assert np.all(lost[::4] > 4 * np.square(solved(weight, False) - weight).sum(1)[::4])
