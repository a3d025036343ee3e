"""All 65536 distances in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.e8p_decode import shortest, table, values


def distances(x: np.ndarray) -> np.ndarray:
    """[R * C / 8, 65536] f64."""
    vectors = x.reshape(-1, 8).astype(np.float64)
    return np.stack([((v - table()) ** 2).sum(1) for v in vectors]) if len(vectors) else np.zeros((0, 65536))


def bound(x: np.ndarray) -> np.ndarray:
    """[R * C / 8] f64: scores of eight fused steps, each rounded four times more at most before they are compared."""
    return 48 * 2.0**-24 * (np.sqrt((x.reshape(-1, 8).astype(np.float64) ** 2).sum(1)) + 4) ** 2


def nearest(x: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For rows x [R, 8] f64 the codes [R] of both stages, their values, and by how much the next best was farther."""
    codes, left, margin = np.zeros(len(x), np.int64), x, np.full(len(x), np.inf)
    stages = [(table(), 1.0), *({3: [(shortest(), 2.04)], 4: [(table(), 3.45)]}.get(bits, []))]
    for stage, (points, scale) in enumerate(stages):
        for r, row in enumerate(left):
            away = ((row * scale - points) ** 2).sum(1)
            first, second = np.partition(away, 1)[:2]
            codes[r] |= int(away.argmin()) << 16 * stage
            margin[r] = min(margin[r], second - first)
        left = x - values(codes[:, None], 2)
    return codes, values(codes[:, None], bits), margin


def e8p_encode(x: np.ndarray) -> np.ndarray:
    """The first nearest code."""
    return distances(x).argmin(1).astype(np.uint16).reshape(len(x), -1)


def case(rows: int, cols: int, scale: float = 1.0, seed: int = 65) -> Case:
    """Normal numbers; around the codebook at scale 1."""
    x = (scale * np.random.default_rng(seed).standard_normal((rows, cols))).astype(np.float32)
    # what the exhaustive search takes, though this one needs few of them
    return Case(f"{rows}x{cols}x{scale:g}", (x,), {}, e8p_encode, bytes=4 * x.size, flops=2 * 65536 * x.size)


def cases() -> list[Case]:
    """Sizes around tiles and chunks, points inside and outside of the codebook."""
    shapes = [(0, 8), (3, 0), (1, 8), (5, 56), (2, 160)]
    return [case(*shape, scale) for shape in shapes for scale in (1.0, 0.1, 4.0, 1e4)]


def large(rows: int, cols: int) -> Case:
    """For the bench."""
    return case(rows, cols)
