from __future__ import annotations

import numpy as np
import pytest
from tests.oracles import kmeans as oracle
from tests.oracles.case import Case

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError, UnknownNameError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", oracle.cases(), ids=str)
def test_iterates_as_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        centroids, index, inertia = kernels.kmeans(*case.args, **case.kwargs)
    expected = case.oracle(*case.args, **case.kwargs)
    # No point of these cases is as near to a second centroid as f32 rounds, so that the assignments are the same.
    np.testing.assert_array_equal(index, expected[1], strict=True)
    np.testing.assert_allclose(centroids, expected[0], rtol=1e-6, atol=1e-6, strict=True)
    np.testing.assert_allclose(inertia, expected[2], rtol=1e-5, atol=1e-6, strict=True)


@paths
@pytest.mark.parametrize("init", ["plusplus", "random"])
@pytest.mark.parametrize("axes", [0, 1, 2])
def test_neither_threads_nor_path_change_anything(path: str, init: str, axes: int) -> None:
    random = np.random.default_rng(3)
    x = random.standard_normal((1500, 4), np.float32)
    weights = random.uniform(0, 1, x.shape[:axes]).astype(np.float32) if axes else None
    with kernels.forced("scalar", 1):
        expected = kernels.kmeans(x, 140, weights, init=init, seed=9, iterations=4)
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            got = kernels.kmeans(x, 140, weights, init=init, seed=9, iterations=4)
        assert all(np.array_equal(one, other) for one, other in zip(got, expected, strict=True))
    assert not np.array_equal(kernels.kmeans(x, 140, weights, init=init, seed=8, iterations=4)[0], expected[0])


@pytest.mark.parametrize("axes", [0, 1, 2])
def test_the_results_belong_together(axes: int) -> None:
    random = np.random.default_rng(4)
    x = random.standard_normal((800, 3), np.float32)
    weights = random.uniform(0, 1, x.shape[:axes]).astype(np.float32) if axes else None
    centroids, index, inertia = kernels.kmeans(x, 50, weights, iterations=8)
    found = oracle.costs(x, centroids, oracle.every(weights, x))
    np.testing.assert_array_equal(index, found.argmin(1))
    np.testing.assert_allclose(inertia[-1], found.min(1).sum(), rtol=1e-6)
    assert (np.diff(inertia) <= 1e-6 * inertia[0]).all()


def test_weights_are_repetitions() -> None:
    random = np.random.default_rng(5)
    x, counts = random.standard_normal((200, 2), np.float32), random.integers(1, 5, 200)
    start = x[:7].copy()
    weighted = kernels.kmeans(x, 7, counts.astype(np.float32), start, iterations=6)
    repeated = kernels.kmeans(np.repeat(x, counts, 0), 7, None, start, iterations=6)
    np.testing.assert_allclose(weighted[0], repeated[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.repeat(weighted[1], counts), repeated[1])
    scaled = kernels.kmeans(x, 7, np.float32(0.25) * counts.astype(np.float32), start, iterations=6)
    np.testing.assert_array_equal(scaled[1], weighted[1])
    elements = kernels.kmeans(x, 7, np.repeat(counts.astype(np.float32)[:, None], 2, 1), start, iterations=6)
    np.testing.assert_array_equal(elements[1], weighted[1])


@pytest.mark.parametrize("init", ["plusplus", "random"])
@pytest.mark.parametrize("points", [1, 40, 300])
def test_as_many_centroids_as_points_leave_no_error(init: str, points: int) -> None:
    x = np.random.default_rng(6).standard_normal((points, 2), np.float32)
    centroids, _, inertia = kernels.kmeans(x, points, init=init, iterations=5)
    assert inertia[-1] == 0
    assert sorted(map(tuple, centroids)) == sorted(map(tuple, x))


def test_one_centroid_is_the_mean() -> None:
    x = np.random.default_rng(7).standard_normal((100, 3), np.float32)
    centroids, index, _ = kernels.kmeans(x, 1, iterations=2)
    np.testing.assert_allclose(centroids[0], x.astype(np.float64).mean(0), rtol=1e-6, atol=1e-7)
    assert not index.any()


def test_fewer_places_than_centroids() -> None:
    x = np.repeat(np.float32([[1, 2], [3, 4], [5, 6]]), 5, 0)
    for init in ("plusplus", "random"):
        centroids, index, inertia = kernels.kmeans(x, 6, init=init, iterations=4)
        assert inertia[-1] == 0
        np.testing.assert_array_equal(centroids[index], x)


def test_plusplus_finds_what_random_misses() -> None:
    """Far places with few points each: drawn by cost all are found."""
    random = np.random.default_rng(8)
    x = np.concatenate([random.standard_normal((500, 2)), random.standard_normal((12, 2)) * 1e3]).astype(np.float32)
    start = [kernels.kmeans(x, 13, init=init, seed=1, iterations=0)[2][0] for init in ("plusplus", "random")]
    assert start[0] < 0.1 * start[1]


def test_a_tolerance_stops_early() -> None:
    x = np.random.default_rng(9).standard_normal((500, 3), np.float32)
    full, early = (kernels.kmeans(x, 20, iterations=30, tolerance=t)[2] for t in (0.0, 0.02))
    assert full[-1] < early[-1]
    steps = np.flatnonzero(np.diff(early))
    np.testing.assert_array_equal(early[: steps[-1] + 2], full[: steps[-1] + 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_named(bad: float) -> None:
    for name in ("x", "weights", "start"):
        arrays = {
            "x": np.ones((9, 4), np.float32),
            "weights": np.ones(9, np.float32),
            "start": np.ones((3, 4), np.float32),
        }
        arrays[name].ravel()[2] = bad
        with pytest.raises(NotFiniteError):
            kernels.kmeans(k=3, **arrays)


def test_wrong_calls_are_refused() -> None:
    x = np.ones((6, 2), np.float32)
    for options in ({"k": 0}, {"k": 7}, {"k": -1}, {"k": 2, "tolerance": -1.0}, {"k": 2, "tolerance": np.nan}):
        with pytest.raises(RangeError):
            kernels.kmeans(x, **options)
    for options in ({"seed": -1}, {"iterations": -1}, {"weights": -np.ones(6, np.float32)}):
        with pytest.raises(RangeError):
            kernels.kmeans(x, 2, **options)
    with pytest.raises(RangeError):
        kernels.kmeans(np.float32(1e20) * x, 2)
    with pytest.raises(RangeError, match="dim"):
        kernels.kmeans(x[:, :0].copy(), 2)
    for options in (
        {"weights": np.ones(5, np.float32)},
        {"start": x[:3].copy()},
        {"weights": np.ones((6, 1), np.float32)},
    ):
        with pytest.raises(ShapeError):
            kernels.kmeans(x, 2, **options)
    with pytest.raises(UnknownNameError, match="hessian"):
        kernels.kmeans(x, 2, init="hessian")
