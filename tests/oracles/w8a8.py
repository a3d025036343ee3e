"""Sums in Python integers, then the three roundings that the kernel promises, one by one."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def w8a8(
    x: np.ndarray, weight: np.ndarray, x_scale: np.ndarray, w_scale: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    """f32(sum) * x_scale * w_scale + bias."""
    out = np.zeros((len(x), len(weight)), np.float32)
    for t, n in np.ndindex(out.shape):
        total = sum(a * b for a, b in zip(x[t].tolist(), weight[n].tolist(), strict=True))
        value = np.float32(total) * x_scale[t if len(x_scale) > 1 else 0] * w_scale[n if len(w_scale) > 1 else 0]
        out[t, n] = value if bias is None else value + bias[n]
    return out


def case(rows: int, cols: int, depth: int, many: bool = True, biased: bool = True, seed: int = 51) -> Case:
    """Any codes, -128 among them."""
    random = np.random.default_rng(seed)
    x = random.integers(-128, 128, (rows, depth)).astype(np.int8)
    weight = random.integers(-128, 128, (cols, depth)).astype(np.int8)
    scales = [random.uniform(1e-3, 1e-1, count if many else 1).astype(np.float32) for count in (rows, cols)]
    bias = random.standard_normal(cols).astype(np.float32) if biased else None
    name = f"{rows}x{cols}x{depth}{'' if many else '-one'}{'-bias' if biased else ''}"
    moved = x.size + weight.size + 4 * rows * cols
    return Case(name, (x, weight, *scales, bias), {}, w8a8, bytes=moved, flops=2 * rows * cols * depth)


def extreme(x: int, w: int, depth: int) -> Case:
    """The same two codes all along: sums at the ends of their range."""
    args = (np.full((2, depth), x, np.int8), np.full((3, depth), w, np.int8), np.ones(1, "f4"), np.ones(1, "f4"))
    return Case(f"{x}x{w}x{depth}", args, {}, w8a8)


def cases() -> list[Case]:
    """Around the steps of 16 and 64 codes, the tiles of 6 rows, the panels of 64 and the stretches of 2048 codes."""
    shapes = [
        (0, 3, 5),
        (1, 1, 1),
        (1, 3, 15),
        (2, 2, 16),
        (5, 4, 17),
        (6, 1, 63),
        (7, 5, 64),
        (13, 67, 65),
        (97, 6, 33),
    ]
    found = [case(*shape, many, biased) for shape in shapes for many in (True, False) for biased in (True, False)]
    found += [case(3, 2, depth) for depth in (2047, 2048, 2049, 4100)]
    ends = [(-128, -128), (-128, 127), (127, 127)]
    return found + [extreme(x, w, depth) for x, w in ends for depth in (1, 130, 2**17 - 1)]


def large(rows: int, cols: int, depth: int) -> Case:
    """For the bench."""
    return case(rows, cols, depth, biased=False)
