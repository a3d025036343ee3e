"""LDLQ as the papers write it, in f64: one codeword's columns at a time, feedback by a dense product, no blocks of
blocks."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.e8p_encode import nearest
from tests.oracles.inverse_factor import correlated

#: Rows nearer than this to another code are kept out of cases: f32 may take the other side of the tie.
MARGIN = 1e-3


def unit_lower(hessian: np.ndarray, dim: int) -> np.ndarray:
    """L of H = L D L^T with unit blocks of `dim` columns on the diagonal, f64."""
    lower = np.linalg.cholesky(hessian.astype(np.float64))
    for k in range(0, len(lower), dim):
        lower[:, k : k + dim] = lower[:, k : k + dim] @ np.linalg.inv(lower[k : k + dim, k : k + dim])
    return lower


def codeword(x: np.ndarray, bits: int, codewords: str, free: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest codes of rows x [R, dim], their values, and how far the choice is from another."""
    if codewords == "e8p":
        return nearest(x, bits)
    whole = np.floor(x + 0.5)
    values = whole if free else np.clip(whole, 0, 2**bits - 1)
    inside = (x > -0.5 - MARGIN) & (x < 2**bits - 0.5 + MARGIN) | free
    margin = np.where(inside, np.abs(x - np.floor(x) - 0.5), 0.5)
    return values[:, 0], values, margin[:, 0]


def run(
    weight: np.ndarray,
    hessian: np.ndarray | None,
    bits: int,
    codewords: str = "integers",
    sweeps: int = 0,
    start: np.ndarray | None = None,
    block: int = 128,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes, values, losses, and each row's smallest distance to a tie."""
    rows, cols = weight.shape
    dim = 8 if codewords == "e8p" else 1
    w = weight.astype(np.float64)
    metric = np.eye(cols) if hessian is None else hessian.astype(np.float64)
    codes, margin = np.zeros((rows, cols // dim)), np.full(rows, 1.0)
    lower = unit_lower(metric, dim)
    values = np.zeros((rows, cols)) if start is None else start.astype(np.float64)
    parts = [slice(k, k + dim) for k in range(cols - dim, -1, -dim)]

    def settle(part: slice, target: np.ndarray, free: bool) -> None:
        nonlocal margin
        codes[:, part.start // dim], values[:, part], distance = codeword(target, bits, codewords, free)
        margin = np.minimum(margin, distance)

    if start is None:
        for part in parts:
            after = slice(part.stop, cols)
            settle(part, w[:, part] + (w - values)[:, after] @ lower[after, part], free=False)
    for _ in range(sweeps):
        for part in parts:
            slope = (w - values) @ metric[:, part]
            settle(part, values[:, part] + slope @ np.linalg.inv(metric[part, part]), free=True)
        if codewords == "integers":
            codes = values = np.clip(values, 0, 2**bits - 1)
    missed = w - values
    return codes, values, np.einsum("ri,ij,rj->r", missed, metric, missed) / 2, margin


def ldlq(*args: object, **kwargs: object) -> tuple[np.ndarray, ...]:
    """Codes, values and loss in the kernel's dtypes."""
    codes, values, loss, _ = run(*args, **kwargs)  # type: ignore[arg-type]
    return codes.astype(np.int64).astype(np.int32), values.astype(np.float32), loss.astype(np.float32)


def problem(rows: int, cols: int, seed: int, bits: int = 2, codewords: str = "integers") -> tuple[np.ndarray, ...]:
    """Weights in units of the codewords, and a correlated Hessian with a mean diagonal of 1."""
    weight = np.random.default_rng(seed).standard_normal((rows, cols))
    if codewords == "integers":
        top = 2**bits - 1
        weight = np.clip((weight / 2.4 + 1) / 2 * top, 0, top)
    hessian = correlated(cols, seed).astype(np.float64)
    hessian = hessian / hessian.diagonal().mean() + 0.05 * np.eye(cols)
    return weight.astype(np.float32), hessian.astype(np.float32)


def narrow(cols: int, seed: int = 0) -> np.ndarray:
    """A Hessian [cols, cols] f32, positive definite, too near to a singular one for an f32 factorization."""
    turns = np.linalg.qr(np.random.default_rng(seed).standard_normal((cols, cols)))[0]
    hessian = ((turns * np.geomspace(3e-9, 1, cols)) @ turns.T).astype(np.float32)
    return (hessian + hessian.T) / 2


def factored(hessian: np.ndarray, dtype: type) -> bool:
    """Whether a Cholesky factorization, column by column in a dtype, meets positive pivots alone."""
    rest = hessian.astype(dtype)
    for k in range(len(rest)):
        if rest[k, k] <= 0:
            return False
        column = rest[k + 1 :, k] / np.sqrt(rest[k, k])
        rest[k + 1 :, k + 1 :] -= np.outer(column, column)
    return True


def settled(rows: int, cols: int, seed: int, bits: int, codewords: str, sweeps: int, block: int) -> Case:
    """As many rows as asked for that stay clear of ties."""
    weight, hessian = problem(3 * rows, cols, seed, bits, codewords)
    options = {"bits": bits, "codewords": codewords, "sweeps": sweeps, "block": block}
    clear = run(weight, hessian, **options)[3] > MARGIN  # type: ignore[arg-type]
    assert clear.sum() >= rows
    weight = np.ascontiguousarray(weight[clear][:rows])
    # f32 sums of `cols` terms of about 1 in the feedback, squared in the loss
    bound = 2e-6 * cols
    return Case(f"{codewords}{bits}-{rows}x{cols}-s{sweeps}-b{block}", (weight, hessian), options, ldlq, bound)


def cases() -> list[Case]:
    """Both kinds of codewords, blocks that end inside, sweeps."""
    found = []
    for bits in (1, 2, 3, 4, 8):
        for rows, cols, sweeps, block in [(1, 1, 0, 8), (5, 9, 1, 4), (33, 24, 0, 128), (20, 70, 0, 32), (9, 24, 2, 7)]:
            found.append(settled(rows, cols, 3 + bits, bits, "integers", sweeps, block))
    for bits in (2, 3, 4):
        for rows, cols, sweeps, block in [(3, 8, 0, 1), (2, 40, 0, 16), (4, 24, 1, 128)]:
            found.append(settled(rows, cols, 13 + bits, bits, "e8p", sweeps, block))
    return found


def large(rows: int, cols: int, bits: int, codewords: str) -> Case:
    """For the bench."""
    options = {"bits": bits, "codewords": codewords}
    args = problem(rows, cols, 7, bits, codewords)
    return Case(f"{rows}x{cols}-{codewords}{bits}", args, options, ldlq, flops=rows * cols**2 + cols**3 // 3)
