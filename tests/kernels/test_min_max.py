from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.min_max import LEAST, cases, optimum, problem, singles, size, swaps

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError, UnknownNameError

paths = pytest.mark.parametrize("path", kernels.paths())
every_move = pytest.mark.parametrize("moves", ["swap", "single", "both"])


def sizes(given: dict[str, np.ndarray], codes: np.ndarray) -> np.ndarray:
    """[R, 2]: largest residuals and squares."""
    rows = zip(given["b"], given["levels"], codes, strict=True)
    return np.array([size(given["a"], *row) for row in rows])


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.min_max(*case.args, **case.kwargs))


@every_move
@pytest.mark.parametrize("guard", [True, False])
def test_every_path_and_number_of_threads_gives_the_same_bits(moves: str, guard: bool) -> None:
    given, results = problem(7, 61, 37, 2, seed=1), []
    for path in kernels.paths():
        for threads in (1, 2, 5):
            with kernels.forced(path, threads):
                results.append(kernels.min_max(**given, iterations=12, share=0.1, moves=moves, guard=guard))
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(one, other)


@every_move
@pytest.mark.parametrize("guard", [True, False])
def test_sizes_are_those_of_the_codes_and_never_rise(moves: str, guard: bool) -> None:
    given = problem(8, 90, 40, 3, seed=2)
    given["frozen"] = (np.random.default_rng(3).random((8, 40)) < 0.25).astype(np.uint8)
    last = np.inf
    for iterations in (0, 1, 5, 20):  # the draws of a short search are the first of a longer one
        found, largest, squares = kernels.min_max(**given, iterations=iterations, moves=moves, guard=guard, share=0.05)
        assert found.max() < 8
        np.testing.assert_array_equal(found[given["frozen"] != 0], given["codes"][given["frozen"] != 0])
        for at, codes in enumerate((given["codes"], found)):
            np.testing.assert_allclose(
                np.stack([largest[:, at], squares[:, at]], 1), sizes(given, codes), rtol=1e-5, atol=0
            )
        assert (largest[:, 1] <= np.minimum(last, largest[:, 0])).all()
        last = largest[:, 1]
        if guard:
            assert (squares[:, 1] <= squares[:, 0]).all()
    assert (last < largest[:, 0]).all()


@every_move
def test_a_search_ends_where_no_move_helps(moves: str) -> None:
    given = problem(8, 30, 14, 2, seed=4)
    found, largest, squares = kernels.min_max(**given, iterations=0, moves=moves)
    free = np.ones(14, bool)
    for row, codes in enumerate(found):
        near = [other for low in range(3) for other in swaps(codes, low, free)] if moves != "single" else []
        near += singles(codes, 4, free) if moves != "swap" else []
        assert near
        for other in near:
            most, sums = size(given["a"], given["b"][row], given["levels"][row], other)
            # Roundings of the f32 search, beside what does not count.
            gained = most < largest[row, 1] - (LEAST + 1e-6) * largest[row, 0]
            assert not (gained and sums < squares[row, 1] * (1 - 1e-6))


def test_is_never_below_the_optimum_and_mostly_reaches_it() -> None:
    reached = []
    for seed in range(4):
        given = problem(10, 24, 6, 2, seed=seed)
        _, largest, _ = kernels.min_max(**given, iterations=300, moves="both", share=0.4, guard=False)
        for row in range(10):
            least = optimum(given["a"], given["b"][row], given["levels"][row])
            assert largest[row, 1] >= least * (1 - 1e-5)
            reached.append(largest[row, 1] <= least * (1 + 1e-5))
    assert np.mean(reached) >= 0.8


@every_move
def test_a_start_without_error_stays(moves: str) -> None:
    random = np.random.default_rng(5)
    a = random.integers(-4, 5, (20, 12)).astype(np.float32)
    levels = np.tile(np.float32([-1, 0, 0.5, 2]), (3, 1))
    codes = random.integers(0, 4, (3, 12)).astype(np.uint8)
    found, largest, squares = kernels.min_max(a, levels[0][codes] @ a.T, levels, codes, moves=moves)
    np.testing.assert_array_equal(found, codes)
    assert not largest.any()
    assert not squares.any()


@every_move
def test_units_do_not_matter(moves: str) -> None:
    given = problem(6, 50, 30, 2, seed=6)
    for factor in (2.0**-20, 1024.0):
        scaled = given | {"a": given["a"] * np.float32(factor), "b": given["b"] * np.float32(factor)}
        codes, largest, squares = kernels.min_max(**given, moves=moves, share=0.05)
        others, most, sums = kernels.min_max(**scaled, moves=moves, share=0.05)
        np.testing.assert_array_equal(others, codes)
        np.testing.assert_array_equal(most, largest * np.float32(factor))
        np.testing.assert_array_equal(sums, squares * np.float32(factor) ** 2)


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("constraints", [256, 512])
def test_lowers_the_largest_error_by_as_much_as_is_said(constraints: int, bits: int) -> None:
    _, largest, squares = kernels.min_max(**problem(6, constraints, 100, bits, seed=7))
    assert np.mean(1 - largest[:, 1] / largest[:, 0]) >= 0.28
    assert np.mean(1 - squares[:, 1] / squares[:, 0]) >= 0.24


def test_seeds_draw_differently() -> None:
    given = problem(6, 60, 40, 2, seed=8)
    one, other = (kernels.min_max(**given, share=0.1, seed=seed)[0] for seed in (1, 2))
    assert (one != other).any()


def test_nothing_moves_where_all_is_frozen() -> None:
    given = problem(3, 20, 10, 2, seed=9)
    found, largest, _ = kernels.min_max(**given, frozen=np.ones((3, 10), np.uint8))
    np.testing.assert_array_equal(found, given["codes"])
    np.testing.assert_array_equal(largest[:, 0], largest[:, 1])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"levels": np.zeros((3, 4), np.float32)}, RangeError),
        ({"levels": np.zeros((3, 0), np.float32)}, RangeError),
        ({"levels": np.tile(np.arange(257, dtype=np.float32), (3, 1))}, RangeError),
        ({"levels": np.full((3, 1), np.nan, np.float32)}, NotFiniteError),
        ({"codes": np.full((3, 10), 4, np.uint8)}, RangeError),
        ({"iterations": -1}, RangeError),
        ({"active": -1}, RangeError),
        ({"share": 1.01}, RangeError),
        ({"share": float("nan")}, RangeError),
        ({"seed": -1}, RangeError),
        ({"moves": "jump"}, UnknownNameError),
        ({"a": np.full((20, 10), np.inf, np.float32)}, NotFiniteError),
        ({"a": np.full((20, 10), 3e38, np.float32)}, NotFiniteError),
        ({"b": np.full((3, 20), np.nan, np.float32)}, NotFiniteError),
        ({"b": np.zeros((3, 19), np.float32)}, ShapeError),
        ({"levels": np.zeros((2, 4), np.float32)}, ShapeError),
        ({"codes": np.zeros((3, 9), np.uint8)}, ShapeError),
        ({"frozen": np.zeros((3, 9), np.uint8)}, ShapeError),
    ],
)
def test_wrong_calls_are_refused(change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        kernels.min_max(**{**problem(3, 20, 10, 2, seed=10), **change})


def test_the_guard_looks_at_all_constraints() -> None:
    """With the sums of more constraints than are searched, their squares do not rise; a sample's alone let them."""
    given = problem(6, 400, 60, 2, 7)
    a, b = given["a"], given["b"]
    few = {**given, "a": a[:40].copy(), "b": b[:, :40].copy()}
    alone, _, _ = kernels.min_max(**few)
    guarded, largest, _ = kernels.min_max(**few, gram=a.T @ a, pull=b @ a)
    begun, safe, loose = (sizes(given, codes)[:, 1].sum() for codes in (given["codes"], guarded, alone))
    assert safe < begun < loose
    assert (largest[:, 1] < 0.9 * largest[:, 0]).all()
    same, _, _ = kernels.min_max(**given, gram=a.T @ a, pull=b @ a)
    assert (same == kernels.min_max(**given)[0]).mean() > 0.98  # the same sums, added up in another order
    with pytest.raises(ShapeError, match="both or neither"):
        kernels.min_max(**given, gram=a.T @ a)
