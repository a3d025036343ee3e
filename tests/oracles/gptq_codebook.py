"""VPTQ's column loop as the paper has it, in f64: one column after the other, every later one updated at once."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.gptq import problem

#: Vectors nearer than this to another codeword are kept out of cases: f32 may take the other side of the tie.
MARGIN = 1e-3


def nearest(points: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first nearest row of `words` [K, v] to each point, and by how much the next one is farther."""
    distances = np.square(points[:, None] - words.astype(np.float64)).sum(2)
    index = distances.argmin(1)
    if len(words) == 1:
        return index, np.ones(len(points))
    two = np.partition(distances, 1, axis=1)
    return index, two[:, 1] - two[:, 0]


def run(
    weight: np.ndarray, factor: np.ndarray, codebook: np.ndarray, residual: np.ndarray | None = None, block: int = 128
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes, compensated weight, loss, and each strip's smallest distance to a tie; `block` changes nothing."""
    (rows, cols), (groups, count, dim) = weight.shape, codebook.shape
    strips = -(-rows // dim)
    now, upper = np.zeros((strips * dim, cols)), factor.astype(np.float64)
    now[:rows] = weight
    codes, loss, margin = np.zeros((strips, cols), np.int64), np.zeros(strips * dim), np.full(strips, 1.0)
    for j in range(cols):
        group = j // (cols // groups)
        left = now[:, j].reshape(strips, dim)
        index, away = nearest(left, codebook[group])
        left, codes[:, j], margin = left - codebook[group][index], index, np.minimum(margin, away)
        if residual is not None:
            index, away = nearest(left, residual[group])
            left, margin = left - residual[group][index], np.minimum(margin, away)
            codes[:, j] |= index << (count - 1).bit_length()
        error = left.reshape(-1) / upper[j, j]
        error[rows:] = 0
        now[:, j + 1 :] -= np.outer(error, upper[j, j + 1 :])
        loss += error**2 / 2
    return codes, now[:rows], loss[:rows], margin


def gptq_codebook(*args: np.ndarray, **kwargs: object) -> tuple[np.ndarray, ...]:
    """Codes, compensated weight and loss in the kernel's dtypes."""
    codes, compensated, loss, _ = run(*args, **kwargs)  # type: ignore[arg-type]
    return codes.astype(np.int32), compensated.astype(np.float32), loss.astype(np.float32)


def case(rows: int, cols: int, dim: int, counts: tuple[int, int], groups: int, block: int, seed: int) -> Case:
    """As many strips as asked for that stay clear of ties; `rows` may end inside the last one."""
    strips = -(-rows // dim)
    weight, factor = problem(4 * strips * dim, cols, seed)
    random = np.random.default_rng(seed)
    stages = [(1, counts[0]), (0.3, counts[1])]
    books = [scale * random.standard_normal((groups, k, dim)).astype(np.float32) for scale, k in stages if k]
    clear = run(weight, factor, *books)[3] > MARGIN
    assert clear.sum() >= strips
    chosen = np.flatnonzero(clear)[:strips]
    weight = np.ascontiguousarray(weight.reshape(-1, dim, cols)[chosen].reshape(-1, cols)[:rows])
    if rows % dim and run(weight, factor, *books)[3].min() <= MARGIN:  # the last strip has other vectors now
        return case(rows, cols, dim, counts, groups, block, seed + 100)
    _, compensated, loss, _ = run(weight, factor, *books)
    largest = max(float(np.abs(compensated).max()), float(loss.max()), 1.0)
    # as for gptq: at most one unit of f32 for each update of a value, and as much from the division
    bound = 4 * (cols + 2) * 2.0**-24 * largest * float(factor.max() / np.diag(factor).min())
    name = f"{rows}x{cols}-v{dim}k{counts[0]}r{counts[1]}-g{groups}-b{block}"
    return Case(name, (weight, factor, *books), {"block": block}, gptq_codebook, bound)


def cases() -> list[Case]:
    """Strips that end short, groups, both stages, blocks that end inside, more rows than a task has."""
    kinds = [
        (1, 1, 1, (2, 0), 1, 8),
        (6, 12, 2, (16, 0), 3, 5),
        (7, 20, 3, (8, 4), 1, 128),
        (40, 24, 4, (64, 0), 2, 16),
        (24, 48, 8, (300, 16), 4, 128),
        (26, 16, 12, (128, 5), 1, 7),
        (16, 9, 16, (1, 64), 1, 3),
        (150, 30, 4, (32, 8), 1, 16),
    ]
    return [case(*kind, seed) for seed, kind in enumerate(kinds)]


def large(rows: int, cols: int, dim: int, count: int, residual: int = 0) -> Case:
    """For the bench: normal codewords, whose search is nearly all of the work."""
    weight = np.random.default_rng(41).standard_normal((rows, cols), np.float32)
    factor = np.triu(np.full((cols, cols), 0.1 / cols, np.float32), 1) + np.eye(cols, dtype=np.float32)
    random = np.random.default_rng(42)
    books = [random.standard_normal((1, k, dim)).astype(np.float32) for k in (count, residual) if k]
    flops = 2 * rows * cols * (count + residual) + rows * cols**2
    name = f"{rows}x{cols}-v{dim}k{count}r{residual}"
    return Case(name, (weight, factor, *books), {}, gptq_codebook, flops=flops)
