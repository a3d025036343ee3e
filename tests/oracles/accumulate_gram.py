"""The sum of outer products, token by token, in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def accumulate_gram(gram: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What `gram` holds afterwards: gram + sum over tokens of x x^T, rounded once."""
    total = gram.astype(np.float64)
    for token in x.astype(np.float64):
        total += np.outer(token, token)
    return total.astype(np.float32)


def bound(gram: np.ndarray, x: np.ndarray) -> float:
    """T + 2 roundings of 2^-24 in f32, each of a sum no larger than the sum of magnitudes."""
    magnitudes = np.abs(gram).astype(np.float64) + np.abs(x.T).astype(np.float64) @ np.abs(x).astype(np.float64)
    return (x.shape[0] + 2) * 2.0**-24 * float(magnitudes.max(initial=0))


def cases() -> list[Case]:
    """Around columns of 16 channels, panels of 64 and the 192 tokens of a part; integers must come out exactly."""
    found = []
    random = np.random.default_rng(21)
    for tokens, channels in [
        (0, 4),
        (1, 1),
        (2, 3),
        (7, 33),
        (40, 255),
        (3, 257),
        (20, 64),
        (192, 16),
        (193, 17),
        (1030, 5),
        (385, 65),
    ]:
        x = random.standard_normal((tokens, channels), np.float32)
        x[:, ::5] *= 30
        gram = np.zeros((channels, channels), np.float32)
        found.append(Case(f"{tokens}x{channels}", (gram, x), {}, accumulate_gram, bound(gram, x)))
        integers = random.integers(-9, 10, (tokens, channels)).astype(np.float32)
        start = integers.T @ integers
        found.append(Case(f"integers-{tokens}x{channels}", (start, integers), {}, accumulate_gram))
    return found


def large(tokens: int, channels: int) -> Case:
    """For the bench."""
    x = np.random.default_rng(22).standard_normal((tokens, channels), np.float32)
    gram = np.zeros((channels, channels), np.float32)
    moved = 4 * (x.size + 2 * gram.size)
    return Case(f"{tokens}x{channels}", (gram, x), {}, accumulate_gram, bytes=moved, flops=tokens * channels**2)
