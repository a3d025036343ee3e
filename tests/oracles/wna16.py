"""Each row of words as one long Python integer, its codes cut out of it; the product in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def decoded(words: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, bits: int, cols: int) -> np.ndarray:
    """[N, K] f64: scale * (code - zero)."""
    values = np.zeros((len(words), cols))
    group = cols // scale.shape[1]
    for n, row in enumerate(words):
        stream = sum((int(word) & 0xFFFFFFFF) << (32 * i) for i, word in enumerate(row))
        for k in range(cols):
            code = stream >> (k * bits) & (2**bits - 1)
            offset = 2 ** (bits - 1) if zero is None else float(zero[n, k // group])
            values[n, k] = float(scale[n, k // group]) * (code - offset)
    return values


def wna16(
    x: np.ndarray,
    words: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray | None,
    bits: int,
    group: int = -1,
    order: np.ndarray | None = None,
) -> np.ndarray:
    """x[:, order] W^T, rounded once."""
    assert group in (-1, x.shape[-1] // max(scale.shape[1], 1))
    if order is not None:
        x = np.stack([x[..., k] for k in order.tolist()], axis=-1)
    return (x.astype(np.float64) @ decoded(words, scale, zero, bits, x.shape[-1]).T).astype(x.dtype)


def bound(x: np.ndarray, words: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, bits: int) -> float:
    """K + 3 roundings of 2^-24 of sums no larger than that of magnitudes, in any order; then the dtype's own."""
    weight = np.abs(decoded(words, scale, zero, bits, x.shape[-1]))
    largest = float((np.abs(x.astype(np.float64)) @ weight.T).max(initial=0))
    return ((x.shape[-1] + 3) * 2.0**-24 + np.finfo(x.dtype).eps / 2 * (x.dtype != np.float32)) * largest


def case(
    rows: int, cols: int, depth: int, bits: int, group: int, zeros: bool | str, seed: int = 41, dtype: str = "f4"
) -> Case:
    """Random words: every bit pattern is a code."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, depth)).astype(dtype)
    width = -(-depth * bits // 32)
    words = random.integers(-(2**31), 2**31, (cols, width)).astype(np.int32)
    scale = random.uniform(0.01, 0.1, (cols, depth // group)).astype(dtype)
    zero = random.integers(0, 2**bits, (cols, depth // group)).astype(np.uint8) if zeros else None
    if isinstance(zeros, str):  # the dtype of zero points that are floats
        zero = random.uniform(-1, 2**bits, (cols, depth // group)).astype(zeros)
    args = (x, words, scale, zero)
    given = f"-{zeros}-zeros" if isinstance(zeros, str) else "-zeros" if zeros else ""
    name = f"{rows}x{cols}x{depth}-b{bits}-g{group}{given}{'' if dtype == 'f4' else '-' + dtype}"
    moved = 4 * words.size + scale.nbytes + (0 if zero is None else zero.nbytes) + x.nbytes + x.itemsize * rows * cols
    options = {"bits": bits, "group": group}
    limit = bound(*args, bits) if rows * cols * depth < 1 << 20 else 0.0
    return Case(name, args, options, wna16, limit, bytes=moved, flops=2 * rows * cols * depth)


def cases() -> list[Case]:
    """Every width of codes; groups inside and across words; few rows and many, around the tiles of both products."""
    found = []
    shapes = [
        (0, 3, 8, 8),
        (1, 1, 1, 1),
        (2, 3, 7, 7),
        (1, 5, 40, 8),
        (3, 65, 96, 32),
        (8, 2, 200, 40),
        (9, 13, 60, 12),
        (17, 257, 64, 64),
        (1, 5, 192, 32),
        (1, 3, 256, 128),
        (50, 5, 64, 64),
        (33, 18, 160, 32),
    ]
    for bits in range(1, 9):
        for rows, cols, depth, group in shapes:
            found += [case(rows, cols, depth, bits, group, zeros) for zeros in (False, True, "f4")]
    found += [case(rows, 9, 128, 4, 64, True, dtype="f2") for rows in (1, 12, 18)]
    found += [case(rows, 9, 128, 4, 64, "f2", dtype=dtype) for rows in (1, 12) for dtype in ("f4", "f2")]
    return found


def large(rows: int, cols: int, depth: int, bits: int, group: int) -> Case:
    """For the bench."""
    return case(rows, cols, depth, bits, group, zeros=False)
