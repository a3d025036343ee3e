"""Swap search one pair at a time, each from the whole of a x - b, in f64; and the least of all assignments."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from tests.oracles.case import Case

#: Rows whose search hangs on a difference smaller than this are kept out of cases: f32 may choose otherwise.
MARGIN = 1e-5
#: A swap counts where it lowers the largest residual by more than this share of what it was at the start.
LEAST = 1e-6


def size(a: np.ndarray, b: np.ndarray, levels: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """The largest residual of one row, and the sum of squares."""
    gap = a.astype(np.float64) @ levels.astype(np.float64)[codes] - b
    return float(np.abs(gap).max()), float(gap @ gap)


def swaps(codes: np.ndarray, low: int, free: np.ndarray) -> list[np.ndarray]:
    """All assignments by which one variable goes from `low` to the next level and another back."""
    found = []
    for up in np.flatnonzero((codes == low) & free):
        for down in np.flatnonzero((codes == low + 1) & free):
            other = codes.copy()
            other[up], other[down] = low + 1, low
            found.append(other)
    return found


def singles(codes: np.ndarray, count: int, free: np.ndarray) -> list[np.ndarray]:
    """All assignments by which one variable goes a level up or down."""
    found = []
    for j in np.flatnonzero(free):
        for code in {max(int(codes[j]) - 1, 0), min(int(codes[j]) + 1, count - 1)} - {int(codes[j])}:
            found.append(codes.copy())
            found[-1][j] = code
    return found


def run(
    a: np.ndarray,
    b: np.ndarray,
    levels: np.ndarray,
    codes: np.ndarray,
    frozen: np.ndarray | None = None,
    iterations: int = 0,
    active: int = 100,
    guard: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes, largest residuals and squares at start and end, and by how little each row's search went as it did."""
    assert iterations == 0, "neighbourhoods are drawn"
    found, sizes, margin = codes.copy(), np.zeros((len(codes), 2, 2)), np.full(len(codes), np.inf)
    for row, now in enumerate(found):
        free = np.ones(len(now), bool) if frozen is None else frozen[row] == 0
        begun = size(a, b[row], levels[row], now)
        (least, squares), low, idle = begun, 0, 0
        while idle < levels.shape[1] - 1:
            others = swaps(now, low, free)
            measured = np.array([size(a, b[row], levels[row], other) for other in others]).reshape(-1, 2)
            bound = least - LEAST * begun[0]
            near = np.abs(measured - (bound, squares)).min(initial=np.inf)
            margin[row] = min(margin[row], near)
            better = [k for k, (most, sums) in enumerate(measured) if most < bound and not (guard and sums > squares)]
            if not better:
                low, idle = (low + 1) % (levels.shape[1] - 1), idle + 1
                continue
            order = sorted(better, key=lambda k: measured[k, 0])
            if len(order) > 1:
                margin[row] = min(margin[row], measured[order[1], 0] - measured[order[0], 0])
            now[:], (least, squares), idle = others[order[0]], measured[order[0]], 0
        sizes[row] = begun, (least, squares)
    return found, sizes[..., 0], sizes[..., 1], margin


def min_max(*args: Any, **kwargs: Any) -> tuple[np.ndarray, ...]:
    """The search's results in the kernel's dtypes."""
    codes, largest, squares, _ = run(*args, **kwargs)
    return codes, largest.astype(np.float32), squares.astype(np.float32)


def optimum(a: np.ndarray, b: np.ndarray, levels: np.ndarray) -> float:
    """The least largest residual of one row, by trying every assignment."""
    x = np.array(list(product(levels.astype(np.float64), repeat=a.shape[1])))
    return float(np.abs(x @ a.astype(np.float64).T - b).max(axis=1).min())


def problem(rows: int, constraints: int, cols: int, bits: int, seed: int) -> dict[str, np.ndarray]:
    """Rounding of random weights to the nearest of even levels over their range, under correlated inputs."""
    random = np.random.default_rng(seed)
    mixed = np.eye(cols) + random.standard_normal((cols, cols)) / cols**0.5
    a = (random.standard_normal((constraints, cols)) @ mixed).astype(np.float32)
    weight = random.standard_normal((rows, cols)).astype(np.float32)
    low, high = weight.min(axis=1, keepdims=True), weight.max(axis=1, keepdims=True)
    levels = (low + np.arange(2**bits) * np.maximum(high - low, 1) / (2**bits - 1)).astype(np.float32)
    codes = np.abs(weight[:, :, None] - levels[:, None]).argmin(axis=2).astype(np.uint8)
    return {"a": a, "b": weight @ a.T, "levels": levels, "codes": codes}


def case(rows: int, constraints: int, cols: int, bits: int, frozen: bool = False, **options: Any) -> Case:
    """At most `rows` rows that are clear of ties, so that f32 and f64 must choose the same codes."""
    given = problem(3 * rows, constraints, cols, bits, rows + constraints + cols + bits)
    if frozen:
        given["frozen"] = (np.random.default_rng(1).random(given["codes"].shape) < 0.3).astype(np.uint8)
    name = f"{rows}x{constraints}x{cols}-b{bits}" + "-frozen" * frozen
    name += "".join(f"-{key}-{value}" for key, value in options.items())
    options |= {"iterations": 0}
    keep = np.flatnonzero(run(**given, **options)[3] > MARGIN)[:rows]
    assert keep.size
    given = {name: array if name == "a" else array[keep] for name, array in given.items()}
    # Residuals are sums in f64, their sizes rounded to f32 once.
    _, largest, squares, _ = run(**given, **options)
    bound = 2.0**-23 * float(max(largest.max(), squares.max()))
    return Case(name, tuple(given.values()), options, min_max, bound)


def cases() -> list[Case]:
    """Widths of codes; constraints and variables that fill no vector; fewer active ones than there are, and none."""
    found = [case(6, 21, 13, bits) for bits in (1, 2, 3)]
    found += [case(3, 1, 1, 2), case(4, 40, 24, 2, frozen=True), case(4, 33, 20, 2, guard=False)]
    return [*found, case(4, 40, 24, 2, active=3), case(4, 40, 24, 2, active=0)]


def large(rows: int, constraints: int, cols: int, bits: int) -> Case:
    """For the bench: swap searches alone; at least one look at every constraint of every pair, none of which helps."""
    given = problem(rows, constraints, cols, bits, 3)
    counts = (given["codes"][:, :, None] == np.arange(2**bits)).sum(axis=1)  # swaps leave them as they are
    flops = 4 * constraints * int((counts[:, 1:] * counts[:, :-1]).sum())
    name = f"{rows}x{constraints}x{cols}-b{bits}"
    return Case(name, tuple(given.values()), {"iterations": 0}, min_max, flops=flops)
