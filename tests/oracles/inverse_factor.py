"""By the definition: the inverse, then the Cholesky factor of the inverse, in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def inverse_factor(hessian: np.ndarray, damp: float) -> np.ndarray:
    """The upper U with (hessian + damp I)^-1 = U^T U."""
    damped = hessian.astype(np.float64) + damp * np.eye(len(hessian))
    lower = np.linalg.cholesky(np.linalg.inv(damped)) if len(hessian) else damped
    return np.ascontiguousarray(lower.T).astype(np.float32)


def correlated(columns: int, seed: int, tokens: int | None = None) -> np.ndarray:
    """x^T x / tokens of inputs whose channels are mixed, as those of a network are."""
    random = np.random.default_rng(seed)
    tokens = tokens or 3 * columns + 5
    mixed = np.eye(columns) + random.standard_normal((columns, columns)) / max(columns, 1) ** 0.5
    x = random.standard_normal((tokens, columns)) @ mixed
    return (x.T @ x / tokens).astype(np.float32)


def bound(hessian: np.ndarray, damp: float) -> float:
    """Backward stable factors lose the condition number times about the size times f32's rounding."""
    damped = hessian.astype(np.float64) + damp * np.eye(len(hessian))
    largest = float(np.abs(inverse_factor(hessian, damp)).max(initial=0))
    return 4 * (len(hessian) + 1) * 2.0**-24 * float(np.linalg.cond(damped)) * largest if len(hessian) else 0.0


def cases() -> list[Case]:
    """Around the block sizes of the factorisation."""
    found = []
    for columns in (0, 1, 2, 3, 16, 63, 65, 128, 130, 257):
        hessian = correlated(columns, columns)
        for damp in (0.01, 1.0):
            limit = bound(hessian, damp)
            found.append(Case(f"{columns}-{damp}", (hessian, damp), {}, inverse_factor, limit))
    return found


def large(columns: int) -> Case:
    """For the bench: a Cholesky factorisation and a triangular inverse, a third of a cube of multiply-adds in all."""
    x = np.random.default_rng(23).standard_normal((512, columns), np.float32)
    hessian = x.T @ x / 512
    flops = 2 * columns**3 // 3
    return Case(f"{columns}", (hessian, 0.01), {}, inverse_factor, bytes=8 * hessian.size, flops=flops)
