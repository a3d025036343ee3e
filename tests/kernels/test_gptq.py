"""The kernel-level checks of GPTQ: what must hold exactly, and what the paper promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.gptq import cases, clear, problem
from tests.oracles.inverse_factor import correlated, inverse_factor

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())

GRIDS: list[dict[str, Any]] = [
    {"bits": 4},
    {"bits": 3, "symmetric": False},
    {"bits": 8, "narrow": True, "scale_dtype": "bf16"},
    {"bits": 4, "symmetric": False, "forced_zero": False, "eps": 1e-5, "scale_dtype": "f16"},
    {"bits": 2, "shrink_steps": 80},
    {"bits": 4, "narrow": True, "shrink_steps": 60},
]


def rtn(weight: np.ndarray, group: int, grid: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """Codes, scale and zero of rounding to nearest."""
    scale, zero = kernels.fit_affine(weight, group=group, **grid)
    return kernels.quantize_affine(weight, scale, zero, bits=grid["bits"], group=group), scale, zero


def values(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray, index: np.ndarray) -> np.ndarray:
    """f64: scale * (code - zero) of each column's group."""
    return scale.astype(np.float64)[:, index] * (codes.astype(np.float64) - zero[:, index])


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.gptq(*case.args, **case.kwargs))


@paths
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("fresh_groups", [False, True])
def test_a_diagonal_hessian_gives_rounding_to_nearest(grid: dict[str, Any], fresh_groups: bool, path: str) -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((37, 192), np.float32)
    factor = np.diag(random.uniform(0.1, 9, 192)).astype(np.float32)
    with kernels.forced(path):
        codes, scale, zero, compensated, _ = kernels.gptq(weight, factor, group=48, fresh_groups=fresh_groups, **grid)
        expected = rtn(weight, 48, grid)
    assert np.array_equal(compensated, weight)
    for got, one in zip((codes, scale, zero), expected, strict=True):
        assert np.array_equal(got, one)


@paths
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_one_input_gives_rounding_to_nearest(grid: dict[str, Any], path: str) -> None:
    weight = np.random.default_rng(1).standard_normal((70, 1), np.float32)
    with kernels.forced(path):
        got = kernels.gptq(weight, np.array([[0.3]], np.float32), **grid)
        expected = rtn(weight, -1, grid)
    for one, other in zip(got, expected, strict=False):
        assert np.array_equal(one, other)


@paths
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_first_group_is_fitted_on_the_weight_as_given(grid: dict[str, Any], path: str) -> None:
    weight, factor = problem(20, 64, 2)
    with kernels.forced(path):
        _, scale, zero, *_ = kernels.gptq(weight, factor, group=32, **grid)
        first_scale, first_zero = kernels.fit_affine(np.ascontiguousarray(weight[:, :32]), **grid)
    assert np.array_equal(scale[:, :1], first_scale)
    assert np.array_equal(zero[:, :1], first_zero)


@paths
@pytest.mark.parametrize("order", [False, True], ids=["in-order", "act-order"])
@pytest.mark.parametrize("rule", ["row", "stale", "fresh", "static"])
@pytest.mark.parametrize("grid", GRIDS[:4], ids=str)
def test_the_loss_is_the_error_measured_by_the_hessian(grid: dict[str, Any], rule: str, order: bool, path: str) -> None:
    """tr((W - Q) H (W - Q)^T) = 2 loss: exact for clamped codes, any groups, any order of the columns."""
    rows, cols, group = 66, 160, 40
    weight, hessian = np.random.default_rng(3).standard_normal((rows, cols), np.float32), correlated(cols, 3)
    permutation = np.argsort(-np.diag(hessian), kind="stable") if order else np.arange(cols)
    hessian = np.ascontiguousarray(hessian[np.ix_(permutation, permutation)])
    permuted = np.ascontiguousarray(weight[:, permutation])
    damp = 0.01 * float(np.trace(hessian)) / cols
    with kernels.forced(path):
        factor = kernels.inverse_factor(hessian, damp)
        if rule == "static":
            scale, zero = kernels.fit_affine(weight, group=group, **grid)
            index = (permutation // group).astype(np.int32)
            result = kernels.gptq(permuted, factor, scale=scale, zero=zero, index=index, bits=grid["bits"])
        else:
            size = cols if rule == "row" else group
            index = np.arange(cols) // size
            result = kernels.gptq(permuted, factor, group=size, fresh_groups=rule == "fresh", **grid)
    codes, scale, zero, _, loss = result
    error = permuted.astype(np.float64) - values(codes, scale, zero, index)
    damped = hessian.astype(np.float64) + damp * np.eye(cols)
    direct = np.einsum("ri,ij,rj->r", error, damped, error)
    np.testing.assert_allclose(direct.sum(), 2 * loss.astype(np.float64).sum(), rtol=1e-5)
    np.testing.assert_allclose(direct, 2 * loss, rtol=1e-4)


@paths
def test_the_block_changes_no_code(path: str) -> None:
    weight, factor = problem(80, 256, 4)
    weight = weight[clear(weight, factor, 4)]
    with kernels.forced(path):
        first, *others = [
            kernels.gptq(weight, factor, bits=4, block=block) for block in (128, 1, 32, 64, 100, 256, 999)
        ]
    for other in others:
        assert np.array_equal(first[0], other[0])
        np.testing.assert_allclose(first[4], other[4], rtol=1e-3)


@paths
def test_the_block_changes_no_code_of_given_groups(path: str) -> None:
    weight, factor = problem(60, 192, 5)
    scale, zero = kernels.fit_affine(weight, bits=3, group=48)
    index = np.repeat(np.arange(4, dtype=np.int32), 48)
    keep = clear(weight, factor, 3, scale=scale, zero=zero, index=index)
    weight, grids = weight[keep], {"scale": scale[keep], "zero": zero[keep], "index": index}
    with kernels.forced(path):
        first, *others = [kernels.gptq(weight, factor, bits=3, block=block, **grids)[0] for block in (32, 64, 128, 192)]
    assert all(np.array_equal(first, other) for other in others)


@paths
@pytest.mark.parametrize("factor", [2.0**-10, 2.0**9, 3.0])
def test_scaling_the_inputs_changes_no_code(factor: float, path: str) -> None:
    """H scales by the square; powers of two do not even change the rounding."""
    weight, hessian = np.random.default_rng(6).standard_normal((64, 128), np.float32), correlated(128, 6)
    weight = weight[clear(weight, inverse_factor(hessian, 0.05), 4, 32)]
    codes = []
    with kernels.forced(path):
        for by in (1.0, factor**2):
            upper = kernels.inverse_factor(hessian * np.float32(by), 0.05 * by)
            codes.append(kernels.gptq(weight, upper, bits=4, group=32)[0])
    assert np.array_equal(*codes)


@paths
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_loss_is_below_that_of_rounding_to_nearest(bits: int, path: str) -> None:
    weight, hessian = np.random.default_rng(7).standard_normal((64, 128), np.float32), correlated(128, 7)
    with kernels.forced(path):
        factor = kernels.inverse_factor(hessian, 0.01)
        *_, loss = kernels.gptq(weight, factor, bits=bits)
        nearest, scale, zero = rtn(weight, -1, {"bits": bits})
    error = weight - values(nearest, scale, zero, np.zeros(128, int))
    assert 2 * loss.sum() < 0.9 * np.einsum("ri,ij,rj->", error, hessian, error)


@paths
@pytest.mark.parametrize("symmetric", [True, False])
def test_dead_columns_decode_to_zero(symmetric: bool, path: str) -> None:
    """Inputs that are always zero: weight 0 and Hessian 1 on the diagonal, as the solver prepares them."""
    weight, hessian = np.random.default_rng(8).standard_normal((40, 96), np.float32), correlated(96, 8)
    dead = [0, 5, 47, 48, 95]
    hessian[dead], hessian[:, dead] = 0, 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    with kernels.forced(path):
        factor = kernels.inverse_factor(hessian, 0.02)
        codes, scale, zero, compensated, _ = kernels.gptq(weight, factor, bits=3, group=24, symmetric=symmetric)
    assert (values(codes, scale, zero, np.arange(96) // 24)[:, dead] == 0).all()
    assert (compensated[:, dead] == 0).all()


@paths
def test_a_zero_weight_stays_zero(path: str) -> None:
    _, factor = problem(1, 32, 9)
    with kernels.forced(path):
        codes, scale, zero, compensated, loss = kernels.gptq(np.zeros((3, 32), np.float32), factor, bits=4, group=8)
    assert (codes == zero[:, :1]).all()
    assert (scale > 0).all()
    assert not compensated.any()
    assert not loss.any()


def test_permuting_the_inputs_permutes_the_codes() -> None:
    """Columns in descending order of the Hessian's diagonal come out in that order however they were given."""
    weight, hessian = np.random.default_rng(10).standard_normal((50, 80), np.float32), correlated(80, 10)
    shuffle = np.random.default_rng(11).permutation(80)
    decoded = []
    for order in (np.arange(80), shuffle):
        w, h = weight[:, order], hessian[np.ix_(order, order)]
        by_size = np.argsort(-np.diag(h), kind="stable")
        factor = kernels.inverse_factor(np.ascontiguousarray(h[np.ix_(by_size, by_size)]), 0.01)
        codes, *_ = kernels.gptq(np.ascontiguousarray(w[:, by_size]), factor, bits=4)
        decoded.append(codes[:, np.argsort(by_size)])
    assert np.array_equal(decoded[0][:, shuffle], decoded[1])


def test_does_not_depend_on_the_threads() -> None:
    weight, factor = problem(300, 160, 12)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(threads=threads):
            results.append(kernels.gptq(weight, factor, bits=4, group=32, symmetric=False))
    for result in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_every_path_gives_the_same_bits() -> None:
    weight, factor = problem(100, 192, 13)
    results = []
    for path in kernels.paths():
        with kernels.forced(path):
            results.append(kernels.gptq(weight, factor, bits=4, group=32, symmetric=False))
    for result in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_the_weight_given_is_left_alone() -> None:
    weight, factor = problem(4, 32, 14)
    before = weight.copy()
    kernels.gptq(weight, factor, bits=4)
    assert np.array_equal(weight, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(bad: float) -> None:
    weight, factor = problem(3, 16, 15)
    weight[1, 2] = bad
    with pytest.raises(NotFiniteError, match="row 1, column 2"):
        kernels.gptq(weight, factor, bits=4)
    weight[1, 2], factor[0, 5] = 0, bad
    with pytest.raises(NotFiniteError):
        kernels.gptq(weight, factor, bits=4)


def test_updates_that_overflow_are_told() -> None:
    weight = np.array([[3e38, -3e38]], np.float32)
    with pytest.raises(NotFiniteError, match="row 0"):
        kernels.gptq(weight, np.array([[1, 3e38], [0, 1]], np.float32), bits=4, block=1)


@pytest.mark.parametrize("change", [{"bits": 0}, {"bits": 9}, {"block": 0}, {"shrink_steps": 101}], ids=str)
def test_options_out_of_range(change: dict[str, int]) -> None:
    with pytest.raises(RangeError):
        kernels.gptq(*problem(3, 16, 16), **{"bits": 4, **change})


def test_a_factor_without_positive_diagonal() -> None:
    weight, factor = problem(3, 16, 17)
    factor[3, 3] = 0
    with pytest.raises(RangeError, match="column 3"):
        kernels.gptq(weight, factor, bits=4)


def test_groups_that_do_not_fit() -> None:
    weight, factor = problem(3, 16, 18)
    with pytest.raises(ShapeError):
        kernels.gptq(weight, factor, bits=4, group=5)
    good = {"scale": np.ones((3, 2), "f4"), "zero": np.full((3, 2), 8, "u1"), "index": np.zeros(16, "i4")}
    kernels.gptq(weight, factor, bits=4, **good)
    for bad in ({"index": np.full(16, 2, "i4")}, {"index": np.full(16, -1, "i4")}, {"scale": np.zeros((3, 2), "f4")}):
        with pytest.raises(RangeError):
            kernels.gptq(weight, factor, bits=4, **(good | bad))
    with pytest.raises(RangeError):
        kernels.gptq(weight, factor, bits=3, **good)
