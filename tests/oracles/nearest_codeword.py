"""All distances in f64 from their definition, and how far a search in f32 may be off."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def scores(x: np.ndarray, codebook: np.ndarray, weights: np.ndarray | None = None, metric: str = "l2") -> np.ndarray:
    """[N, K] f64: what the nearest codeword has least of."""
    x, codebook = x.astype(np.float64), codebook.astype(np.float64)
    found = np.zeros((len(x), len(codebook)))
    for p, k in np.ndindex(found.shape):
        w = np.ones(x.shape[1]) if weights is None else weights[p].astype(np.float64)
        found[p, k] = (w * (x[p] - codebook[k]) ** 2).sum() if metric == "l2" else -(w * x[p] * codebook[k]).sum()
    return found


def bound(x: np.ndarray, codebook: np.ndarray, weights: np.ndarray | None = None, metric: str = "l2") -> np.ndarray:
    """[N] f64: how much larger than the least the chosen score may be.

    A score is half of |c|^2 minus x.c, in `steps` fused additions of at most (|x| + |c|)^2 / 2 in all, each within
    2^-24 of itself; the products of weights, and |c|^2 / 2 itself, add two roundings more. Two scores are compared, and
    doubled.
    """
    w = np.ones_like(x, np.float64) if weights is None else weights.astype(np.float64)
    sizes = [np.sqrt((w * x.astype(np.float64) ** 2).sum(1)), np.zeros(len(x))]
    for c in codebook.astype(np.float64):
        sizes[1] = np.maximum(sizes[1], np.sqrt((w * c**2).sum(1)))
    steps = x.shape[1] * (2 if weights is not None and metric == "l2" else 1)
    return 4 * (steps + 2) * 2.0**-24 * (sizes[0] + sizes[1]) ** 2 + (steps + 2) * 2.0**-148


def nearest_codeword(
    x: np.ndarray, codebook: np.ndarray, weights: np.ndarray | None = None, metric: str = "l2"
) -> tuple[np.ndarray, np.ndarray]:
    """The first least score and the distance or product that it stands for, exactly."""
    found = scores(x, codebook, weights, metric)
    index = found.argmin(1).astype(np.int32)
    near = found.min(1) * (1 if metric == "l2" else -1)
    return index, near.astype(np.float32)


def case(points: int, count: int, dim: int, weighted: bool = False, metric: str = "l2", seed: int = 61) -> Case:
    """Normal points, and codewords of the same kind."""
    random = np.random.default_rng(seed)
    x, codebook = (random.standard_normal((n, dim), np.float32) for n in (points, count))
    weights = random.uniform(0, 2, (points, dim)).astype(np.float32) if weighted else None
    name = f"{points}x{count}x{dim}-{metric}{'-weighted' if weighted else ''}"
    flops = 2 * points * count * dim * (2 if weighted and metric == "l2" else 1)
    moved = 4 * (x.size + codebook.size + 2 * points)
    return Case(name, (x, codebook, weights, metric), {}, nearest_codeword, bytes=moved, flops=flops)


def cases() -> list[Case]:
    """Around the panels of 16 codewords, the tiles of 6 points, the blocks and the 192 points that they meet."""
    shapes = [
        (0, 3, 4),
        (1, 1, 1),
        (5, 2, 0),
        (5, 15, 1),
        (6, 16, 2),
        (7, 17, 3),
        (13, 33, 8),
        (3, 700, 4),
        (40, 257, 16),
        (9, 100, 19),
        (193, 31, 5),
        (2, 4097, 2),
    ]
    return [
        case(*shape, weighted, metric) for shape in shapes for weighted in (False, True) for metric in ("l2", "inner")
    ]


def large(points: int, count: int, dim: int, weighted: bool = False) -> Case:
    """For the bench."""
    return case(points, count, dim, weighted)
