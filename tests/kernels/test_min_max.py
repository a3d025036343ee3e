"""min_max against its definition: what it reports, what it leaves alone, where it stops, and how far it gets."""

from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.min_max import least, moved, residuals

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError, UnknownNameError

Problem = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def rounding(rows: int, constraints: int, cols: int, bits: int, seed: int = 0) -> Problem:
    """Rounding a weight on correlated inputs: a, b, levels, the nearest codes, the weight."""
    random = np.random.default_rng(seed)
    mix = np.eye(cols) + random.standard_normal((cols, cols)) / np.sqrt(cols)
    a = (random.standard_normal((constraints, cols)) @ mix).astype(np.float32)
    weight = random.standard_normal((rows, cols)).astype(np.float32)
    low, high = weight.min(axis=1, keepdims=True), weight.max(axis=1, keepdims=True) + np.float32(1e-3)
    steps = np.arange(1 << bits, dtype=np.float32)
    levels = low + (high - low) / np.float32(steps[-1]) * steps
    codes = np.abs(weight[:, :, None] - levels[:, None]).argmin(axis=2).astype(np.uint8)
    return a, weight @ a.T, levels, codes, weight


@pytest.mark.parametrize("moves", ["swap", "single", "both"])
@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (5, 33, 40), (2, 100, 17)])
def test_reports_what_its_codes_give_and_gets_no_worse(shape: tuple[int, int, int], guard: bool, moves: str) -> None:
    a, b, levels, start, _ = rounding(*shape, bits=2)
    frozen = (np.arange(start.size) % 4 == 1).astype(np.uint8).reshape(start.shape)
    codes, largest, squares = kernels.min_max(
        a, b, levels, start, frozen, iterations=20, guard=guard, moves=moves, share=0.1
    )
    assert codes.max() < 4
    np.testing.assert_array_equal(codes[frozen != 0], start[frozen != 0])
    for row in range(len(b)):
        for k, given in enumerate((start, codes)):
            left = residuals(a, b[row], levels[row], given[row])
            np.testing.assert_allclose(largest[row, k], np.abs(left).max(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(squares[row, k], np.square(left).sum(), rtol=1e-4, atol=1e-5)
    assert (largest[:, 1] <= largest[:, 0]).all()
    assert not guard or (squares[:, 1] <= squares[:, 0] * (1 + 1e-5)).all()


@pytest.mark.parametrize("moves", ["swap", "single"])
@pytest.mark.parametrize("guard", [True, False])
def test_stops_where_no_move_helps(moves: str, guard: bool) -> None:
    """Brute force over all moves: the filters lose none that helps."""
    a, b, levels, start, _ = rounding(12, 40, 24, bits=2, seed=1)
    none = np.zeros(24, np.uint8)
    codes, largest, squares = kernels.min_max(a, b, levels, start, iterations=0, active=5, guard=guard, moves=moves)
    assert (largest[:, 1] < largest[:, 0]).sum() > 6
    for row in range(len(b)):
        for other in moved(codes[row].astype(int), moves, none, 4):
            left = residuals(a, b[row], levels[row], other)
            worse = np.abs(left).max() > largest[row, 1] * (1 - 1e-4)
            assert worse or (guard and np.square(left).sum() > squares[row, 1] * (1 - 1e-4))


def test_reaches_the_optimum_of_small_problems() -> None:
    a, b, levels, start, _ = rounding(25, 6, 6, bits=2, seed=2)
    _, largest, _ = kernels.min_max(a, b, levels, start, iterations=500, guard=False, moves="both", share=0.5)
    best = np.array([least(a, b[row], levels[row]) for row in range(len(b))])
    assert (largest[:, 1] > best * (1 - 1e-4)).all()
    assert (largest[:, 1] < best * (1 + 1e-4)).mean() >= 0.8


def test_a_start_that_fits_stays() -> None:
    a, _, levels, start, _ = rounding(4, 30, 20, bits=3)
    b = np.stack([a @ levels[row][start[row]] for row in range(4)])
    codes, largest, _ = kernels.min_max(a, b, levels, start)
    np.testing.assert_array_equal(codes, start)
    assert largest.max() < 1e-5


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**30])
def test_units_change_no_code(scale: float) -> None:
    a, b, levels, start, _ = rounding(6, 50, 30, bits=2, seed=3)
    codes, largest, _ = kernels.min_max(a, b, levels, start)
    factor = np.float32(scale)
    again, scaled, _ = kernels.min_max(a * factor, b * factor, levels, start)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_allclose(scaled, largest * factor, rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 3])
def test_gets_as_far_as_the_published_search(bits: int) -> None:
    """From the nearest codes on correlated rows, 30 neighbourhoods: by 28 % at least, the squares by 24 %."""
    a, b, levels, start, _ = rounding(8, 384, 100, bits=bits, seed=4)
    _, largest, squares = kernels.min_max(a, b, levels, start, iterations=30)
    assert largest[:, 1].mean() < 0.72 * largest[:, 0].mean()
    assert squares[:, 1].mean() < 0.76 * squares[:, 0].mean()


def test_every_path_and_number_of_threads_gives_the_same() -> None:
    a, b, levels, start, _ = rounding(5, 70, 33, bits=2, seed=5)
    found = []
    for path in kernels.paths():
        for threads in (1, 2, 3):
            with kernels.forced(path, threads):
                found.append(kernels.min_max(a, b, levels, start, moves="both"))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_seed_is_other_draws() -> None:
    a, b, levels, start, _ = rounding(8, 200, 60, bits=2, seed=6)
    one, two = (kernels.min_max(a, b, levels, start, seed=seed)[0] for seed in (1, 2))
    assert (one != two).any()


def test_bad_input_is_told() -> None:
    a, b, levels, start, _ = rounding(2, 9, 7, bits=2)
    for change, error in (
        ({"levels": levels[:, ::-1].copy()}, RangeError),
        ({"codes": start + np.uint8(4)}, RangeError),
        ({"share": 1.5}, RangeError),
        ({"iterations": -1}, RangeError),
        ({"moves": "jump"}, UnknownNameError),
        ({"b": b[:, :8].copy()}, ShapeError),
        ({"a": np.full_like(a, np.nan)}, NotFiniteError),
    ):
        with pytest.raises(error):
            kernels.min_max(**({"a": a, "b": b, "levels": levels, "codes": start} | change))  # type: ignore[arg-type]
