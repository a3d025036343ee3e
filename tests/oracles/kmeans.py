"""Lloyd's iterations in f64 from given centroids: draws have no definition but the kernel's."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def every(weights: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    """One weight an element, f64."""
    if weights is None:
        return np.ones(x.shape)
    return np.broadcast_to(weights.reshape(len(x), -1), x.shape).astype(np.float64)


def costs(x: np.ndarray, centroids: np.ndarray, w: np.ndarray) -> np.ndarray:
    """[N, K] f64."""
    found = np.zeros((len(x), len(centroids)))
    for c, centroid in enumerate(centroids.astype(np.float64)):
        found[:, c] = (w * (x.astype(np.float64) - centroid) ** 2).sum(1)
    return found


def kmeans(
    x: np.ndarray, k: int, weights: np.ndarray | None, start: np.ndarray, iterations: int = 25
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centroids are rounded to f32 after each iteration, as they are stored."""
    w, centroids = every(weights, x), start.astype(np.float32)
    found = costs(x, centroids, w)
    index, inertia = found.argmin(1), [found.min(1).sum()]
    for _ in range(iterations):
        counts, cost = np.bincount(index, minlength=k), found.min(1)
        for c in np.flatnonzero(counts == 0):
            rows = [p for p in np.lexsort((np.arange(len(x)), -cost)) if cost[p] > 0 and counts[index[p]] > 1]
            if rows:
                counts[index[rows[0]]] -= 1
                index[rows[0]], counts[c], cost[rows[0]] = c, 1, 0
        for c in range(k):
            mine = index == c
            total = w[mine].sum(0)
            mean = (w[mine] * x[mine].astype(np.float64)).sum(0) / np.where(total > 0, total, 1)
            centroids[c] = np.where(total > 0, mean, centroids[c])
        found = costs(x, centroids, w)
        before, index = index, found.argmin(1)
        inertia.append(found.min(1).sum())
        if np.array_equal(before, index):
            break
    inertia += inertia[-1:] * (iterations + 1 - len(inertia))
    return centroids, index.astype(np.int32), np.array(inertia, np.float32)


def case(points: int, dim: int, k: int, weights: int = 0, spread: float = 1.0, seed: int = 62) -> Case:
    """Points around k places; `weights` axes of weights. A start far off (`spread` above 1) leaves centroids empty."""
    random = np.random.default_rng(seed)
    places = 4 * random.standard_normal((k, dim))
    x = (places[random.integers(0, k, points)] + random.standard_normal((points, dim))).astype(np.float32)
    w = random.uniform(0, 2, (points, dim)[:weights]).astype(np.float32) if weights else None
    start = (spread * random.standard_normal((k, dim))).astype(np.float32)
    flops = 2 * points * dim * k
    return Case(f"{points}x{dim}-{k}-{weights}-{spread:g}", (x, k, w, start), {"iterations": 12}, kmeans, flops=flops)


def cases() -> list[Case]:
    """All kinds of weights; starts with and without empty centroids."""
    shapes = [(1, 1, 1), (7, 1, 3), (60, 2, 5), (150, 3, 20), (90, 17, 4)]
    return [case(*shape, weights, spread) for shape in shapes for weights in range(3) for spread in (1.0, 40.0)]


def large(points: int, dim: int, k: int) -> Case:
    """For the bench: normal points, started from the first of them."""
    x = np.random.default_rng(63).standard_normal((points, dim), np.float32)
    return Case(f"{points}x{dim}-{k}", (x, k, None, x[:k].copy()), {"iterations": 4}, kmeans, flops=10 * x.size * k)
