"""The descent one strip of a column at a time, in f64, each time from the whole of (w - q) H: no kept slope."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.oracles.case import Case
from tests.oracles.inverse_factor import correlated

#: Strips nearer than this to another choice are kept out of cases: f32 may take the other side of the tie.
MARGIN = 1e-3


def closest(point: np.ndarray, words: np.ndarray) -> tuple[int, float]:
    """The first nearest row, and by how much the next one is farther."""
    distances = np.square(point - words.astype(np.float64)).sum(1)
    two = np.sort(distances)[:2]
    return int(distances.argmin()), float(two[-1] - two[0]) if len(two) > 1 else 1.0


def run(
    weight: np.ndarray,
    hessian: np.ndarray,
    codes: np.ndarray,
    codebook: np.ndarray,
    residual: np.ndarray | None = None,
    beside: np.ndarray | None = None,
    sweeps: int = 3,
    block: int = 128,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, what they stand for [R, C] f64, and each strip's smallest distance to another choice; `block` changes
    nothing."""
    (rows, cols), (groups, count, dim) = weight.shape, codebook.shape
    form, low, strips = hessian.astype(np.float64), (count - 1).bit_length(), -(-rows // dim)
    found, margin, q = codes.astype(np.int64), np.full(strips, 1.0), np.zeros((strips * dim, cols))
    w, more = np.zeros_like(q), np.zeros_like(q)
    w[:rows], more[:rows] = weight, 0 if beside is None else beside

    def word(code: int, group: int) -> np.ndarray:
        first = codebook[group][code & ((1 << low) - 1)].astype(np.float64)
        return first if residual is None else first + residual[group][code >> low]

    for strip, j in np.ndindex(found.shape):
        q[strip * dim : (strip + 1) * dim, j] = word(found[strip, j], j // (cols // groups))
    for strip in range(strips):
        own = np.arange(strip * dim, (strip + 1) * dim)
        there = own < rows
        for _ in range(sweeps):
            for j in range(cols):
                if form[j, j] == 0:
                    continue
                group = j // (cols // groups)
                slope = (w[own] - q[own]) @ form[:, j] + more[own, j]
                ideal = np.where(there, q[own, j] + slope / form[j, j], 0)
                code = int(found[strip, j])
                rest = 0 if residual is None else residual[group][code >> low].astype(np.float64)
                k, away = closest(ideal - rest, codebook[group])
                margin[strip] = min(margin[strip], away)
                if residual is not None:
                    m, away = closest(ideal - codebook[group][k].astype(np.float64), residual[group])
                    margin[strip], k = min(margin[strip], away), k | m << low
                gain = np.square(ideal - word(code, group)).sum() - np.square(ideal - word(k, group)).sum()
                if k != code:
                    margin[strip] = min(margin[strip], abs(gain))
                if gain > 0:
                    found[strip, j], q[own, j] = k, word(k, group)
    return found, q[:rows], margin


def codebook_descent(*args: Any, **kwargs: Any) -> np.ndarray:
    """Codes in the kernel's dtype."""
    return run(*args, **kwargs)[0].astype(np.int32)


def problem(
    rows: int, cols: int, dim: int, counts: tuple[int, int], groups: int, seed: int, beside: bool = False
) -> dict[str, Any]:
    """A random weight with a correlated Hessian, one column of which nobody reads, and random codes to begin with."""
    random = np.random.default_rng(seed)
    hessian = correlated(cols, seed)
    if cols > 2:
        hessian[2], hessian[:, 2] = 0, 0
    books = [scale * random.standard_normal((groups, k, dim)) for scale, k in ((1, counts[0]), (0.3, counts[1])) if k]
    codes = random.integers(0, counts[0], (-(-rows // dim), cols))
    if counts[1]:
        codes |= random.integers(0, counts[1], codes.shape) << (counts[0] - 1).bit_length()
    names = {"codebook": books[0], "residual": books[1] if counts[1] else None}
    names["beside"] = hessian.diagonal() * random.standard_normal((rows, cols)) if beside else None
    given = {name: None if value is None else value.astype(np.float32) for name, value in names.items()}
    weight = random.standard_normal((rows, cols), np.float32)
    return {"weight": weight, "hessian": hessian, "codes": codes.astype(np.int32), **given}


def case(
    rows: int, cols: int, dim: int, counts: tuple[int, int], groups: int, block: int, sweeps: int, seed: int
) -> Case:
    """The strips of a larger problem that stay clear of ties, in groups of rows as asked for."""
    given = problem(8 * rows, cols, dim, counts, groups, seed, beside=seed % 2 == 1)
    clear = run(**given, sweeps=sweeps)[2] > MARGIN
    strips = -(-rows // dim)
    chosen = np.flatnonzero(clear[: 8 * rows // dim])[:strips]
    assert len(chosen) == strips
    places = (chosen[:, None] * dim + np.arange(dim)).ravel()[:rows]
    for name in ("weight", "beside"):
        given[name] = None if given[name] is None else np.ascontiguousarray(given[name][places])
    given["codes"] = np.ascontiguousarray(given["codes"][chosen])
    if rows % dim and run(**given, sweeps=sweeps)[2].min() <= MARGIN:  # the last strip has other vectors now
        return case(rows, cols, dim, counts, groups, block, sweeps, seed + 100)
    name = f"{rows}x{cols}-v{dim}k{counts[0]}r{counts[1]}-g{groups}-b{block}-n{sweeps}"
    return Case(name, (), {**given, "block": block, "sweeps": sweeps}, codebook_descent)


def cases() -> list[Case]:
    """Strips that end short, groups, both stages, blocks that end inside, more rows than a task has, columns beside."""
    kinds = [
        (1, 1, 1, (2, 0), 1, 8, 1),
        (6, 12, 2, (16, 0), 3, 5, 2),
        (7, 20, 3, (8, 4), 1, 128, 3),
        (40, 24, 4, (32, 0), 2, 16, 1),
        (24, 12, 8, (100, 16), 4, 128, 2),
        (26, 16, 12, (20, 5), 1, 7, 2),
        (16, 9, 16, (1, 64), 1, 3, 2),
        (250, 10, 2, (8, 0), 1, 16, 2),
    ]
    return [case(*kind, seed) for seed, kind in enumerate(kinds)]


def large(rows: int, cols: int, dim: int, count: int, residual: int = 0) -> Case:
    """For the bench: normal codewords, whose search is much of the work."""
    given = problem(rows, cols, dim, (count, residual), 1, 43)
    flops = 2 * rows * cols * (count + residual) + 4 * rows * cols**2
    name = f"{rows}x{cols}-v{dim}k{count}r{residual}"
    return Case(name, (), {**given, "sweeps": 1}, codebook_descent, flops=flops)
