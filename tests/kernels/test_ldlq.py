from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.ldlq import cases, factored, ldlq, narrow, problem, unit_lower

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError, SingularError, UnknownNameError

paths = pytest.mark.parametrize("path", kernels.paths())
KINDS = [(2, "integers"), (4, "integers"), (2, "e8p"), (3, "e8p"), (4, "e8p")]
kinds = pytest.mark.parametrize(("bits", "codewords"), KINDS)


def decoded(codes: np.ndarray, bits: int, codewords: str) -> np.ndarray:
    if codewords == "integers":
        return codes.astype(np.float32)
    return kernels.e8p_decode(codes.astype(np.uint16) if bits == 2 else codes, bits)


def measured(missed: np.ndarray, hessian: np.ndarray) -> float:
    missed = missed.astype(np.float64)
    return float((missed @ hessian * missed).sum()) / 2


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        got = kernels.ldlq(*case.args, **case.kwargs)
    expected = case.oracle(*case.args, **case.kwargs)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_allclose(got[2], expected[2], rtol=0, atol=case.bound)


@paths
@kinds
def test_codes_say_the_values_and_threads_change_nothing(bits: int, codewords: str, path: str) -> None:
    weight, hessian = problem(150, 48, 1, bits, codewords)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.ldlq(weight, hessian, bits, codewords, sweeps=2, block=16))
    for result in results:
        for one, other in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(decoded(results[0][0], bits, codewords), results[0][1])


@kinds
def test_the_loss_is_that_of_the_rounding_residuals(bits: int, codewords: str) -> None:
    """The sheet's identity: sum over steps of eta D eta^T, eta the residual of what was rounded, however blocked."""
    weight, hessian = problem(6, 64, 2, bits, codewords)
    dim = 8 if codewords == "e8p" else 1
    lower = unit_lower(hessian, dim)
    diagonal = np.linalg.inv(lower) @ hessian.astype(np.float64) @ np.linalg.inv(lower).T
    for block in (8, 24, 128):
        _, values, loss = kernels.ldlq(weight, hessian, bits, codewords, block=block)
        missed = weight.astype(np.float64) - values
        steps = missed @ lower  # what was rounded, less what it became
        parts = [steps[:, k : k + dim] @ diagonal[k : k + dim, k : k + dim] for k in range(0, 64, dim)]
        expected = (np.concatenate(parts, axis=1) * steps).sum(1) / 2
        np.testing.assert_allclose(loss, expected, rtol=2e-4)


@kinds
def test_a_diagonal_hessian_or_none_gives_the_nearest(bits: int, codewords: str) -> None:
    weight, _ = problem(9, 40, 3, bits, codewords)
    hessian = np.diag(np.repeat(np.random.default_rng(0).uniform(0.5, 4, 5), 8)).astype(np.float32)
    nearest = kernels.ldlq(weight, None, bits, codewords)
    np.testing.assert_array_equal(kernels.ldlq(weight, hessian, bits, codewords, sweeps=3)[0], nearest[0])
    np.testing.assert_allclose(nearest[2], ((weight - nearest[1]) ** 2).sum(1) / 2, rtol=1e-5)


@kinds
def test_feedback_and_sweeps_lower_the_loss(bits: int, codewords: str) -> None:
    """On average over problems; sweeps of integers in every one where no clamp acts."""
    plain = fed = swept = 0.0
    for seed in range(20):
        weight, hessian = problem(8, 48, seed, bits, codewords)
        if codewords == "integers":
            weight = weight * 0.3 + 1  # far from the ends of the range
        plain += measured(weight - kernels.ldlq(weight, None, bits, codewords)[1], hessian)
        once = kernels.ldlq(weight, hessian, bits, codewords)
        more = kernels.ldlq(weight, hessian, bits, codewords, sweeps=10)
        fed, swept = fed + float(once[2].sum()), swept + float(more[2].sum())
        if codewords == "integers" and more[1].min() > 0 and more[1].max() < 2**bits - 1:
            assert (more[2] <= once[2] * (1 + 1e-4)).all()
            np.testing.assert_array_equal(more[0], kernels.ldlq(weight, hessian, bits, codewords, sweeps=200)[0])
    assert fed < plain
    assert swept < fed or codewords == "e8p"
    assert swept < plain


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_gives_the_codes_of_gptq_with_the_columns_flipped(bits: int) -> None:
    weight, hessian = problem(64, 72, 5, bits)
    flipped, reversed_hessian = weight[:, ::-1].copy(), hessian[::-1, ::-1].copy()
    unit, zero = np.ones((64, 1), np.float32), np.zeros((64, 1), np.uint8)
    factor = kernels.inverse_factor(reversed_hessian, 0.0)
    grids = {"scale": unit, "zero": zero, "index": np.zeros(72, np.int32)}
    codes = kernels.gptq(flipped, factor, bits, symmetric=False, **grids)[0]
    # f32 may fall on the other side of a tie, and what follows in that row with it
    assert (codes[:, ::-1] == kernels.ldlq(weight, hessian, bits)[0]).all(1).mean() > 0.95


@pytest.mark.parametrize("sweeps", [1, 10])
def test_sweeps_begin_where_they_are_told(sweeps: int) -> None:
    weight, hessian = problem(8, 24, 6, 4)
    codes, values, loss = kernels.ldlq(weight, hessian, 4, sweeps=sweeps, start=weight)
    np.testing.assert_array_equal(values, codes.astype(np.float32))
    assert loss.sum() < measured(weight - np.floor(weight + 0.5), hessian)


@paths
@kinds
def test_what_f32_cannot_factor_is_factored_in_f64(bits: int, codewords: str, path: str) -> None:
    """QuIP#'s sheet, B.5: "if Cholesky is not finite, redo in fp64"."""
    hessian = narrow(128)
    assert not factored(hessian, np.float32)
    assert factored(hessian, np.float64)
    weight, _ = problem(16, 128, 8, bits, codewords)
    with kernels.forced(path):
        codes, values, loss = kernels.ldlq(weight, hessian, bits, codewords)
    np.testing.assert_array_equal(decoded(codes, bits, codewords), values)
    exact = measured(weight - values, hessian)
    # what f32 sums of the loss itself lose, beside the small values that are left
    np.testing.assert_allclose(loss.sum(), exact, rtol=1e-2)
    assert exact < measured(weight - kernels.ldlq(weight, None, bits, codewords)[1], hessian)
    best = ldlq(weight, hessian, bits, codewords)[1]
    np.testing.assert_allclose(exact, measured(weight - best, hessian), rtol=0.05)


def test_a_singular_hessian_is_none_in_f64_either() -> None:
    """Rank 16, of whole numbers: exact in f32, with pivots of rounding errors alone."""
    inputs = np.random.default_rng(0).integers(-8, 9, (16, 48))
    hessian = (inputs.T @ inputs).astype(np.float32)
    with pytest.raises(SingularError, match="pivot"):
        kernels.ldlq(problem(4, 48, 9)[0], hessian, 2)


def test_nothing_gives_nothing() -> None:
    codes, values, loss = kernels.ldlq(np.zeros((0, 8), np.float32), np.eye(8, dtype=np.float32), 2, "e8p")
    assert (codes.shape, values.shape, loss.shape) == ((0, 1), (0, 8), (0,))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"bits": 9}, RangeError),
        ({"bits": 5, "codewords": "e8p"}, RangeError),
        ({"block": 0}, RangeError),
        ({"sweeps": -1}, RangeError),
        ({"sweeps": 1, "hessian": None}, RangeError),
        ({"start": np.ones((8, 24), np.float32)}, RangeError),
        ({"start": np.full((8, 24), np.nan, np.float32), "sweeps": 1}, NotFiniteError),
        ({"hessian": np.full((24, 24), np.nan, np.float32)}, NotFiniteError),
        ({"hessian": -np.eye(24, dtype=np.float32)}, SingularError),
        ({"weight": np.full((8, 24), np.inf, np.float32)}, NotFiniteError),
        ({"hessian": np.eye(23, dtype=np.float32)}, ShapeError),
        ({"weight": np.ones((8, 23), np.float32), "hessian": None, "codewords": "e8p"}, ShapeError),
        ({"start": np.ones((8, 23), np.float32), "sweeps": 1}, ShapeError),
        ({"codewords": "e9"}, UnknownNameError),
    ],
    ids=str,
)
def test_bad_input(change: dict[str, object], error: type[Exception]) -> None:
    weight, hessian = problem(8, 24, 7)
    with pytest.raises(error):
        kernels.ldlq(**({"weight": weight, "hessian": hessian, "bits": 2} | change))
