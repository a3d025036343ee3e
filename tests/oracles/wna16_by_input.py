"""Each row of codes as one long Python integer; a scale and a zero point for each column of a group of rows; f64."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def codes(words: np.ndarray, bits: int, cols: int) -> np.ndarray:
    """[N, K] f64."""
    values = np.zeros((len(words), cols))
    for n, row in enumerate(words):
        stream = int.from_bytes(row.astype("<i4").tobytes(), "little")
        values[n] = [stream >> (k * bits) & (2**bits - 1) for k in range(cols)]
    return values


def spread(values: np.ndarray, rows: int) -> np.ndarray:
    """[N, K] f64: the parameter of each weight."""
    return np.array([values[n * len(values) // rows] for n in range(rows)], np.float64).reshape(rows, values.shape[1])


def wna16_by_input(
    x: np.ndarray, words: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, bits: int, group: int = -1
) -> np.ndarray:
    """x W^T, rounded once."""
    rows, depth = len(words), x.shape[-1]
    assert group in (-1, rows // max(len(scale), 1))
    offset = np.full((rows, depth), 2.0 ** (bits - 1)) if zero is None else spread(zero, rows)
    weight = spread(scale, rows) * (codes(words, bits, depth) - offset)
    return (x.astype(np.float64) @ weight.T).astype(x.dtype)


def case(
    rows: int, cols: int, depth: int, bits: int, group: int, zeros: str, dtype: str = "f4", check: bool = True
) -> Case:
    """Random words: every bit pattern is a code. `zeros`: "" or the dtype of the zero points."""
    random = np.random.default_rng(rows + cols + depth + bits)
    x = random.standard_normal((rows, depth)).astype(dtype)
    words = random.integers(-(2**31), 2**31, (cols, -(-depth * bits // 32))).astype(np.int32)
    scale = random.uniform(0.01, 0.1, (cols // group, depth)).astype(dtype)
    drawn = random.uniform(0, 2**bits - 0.6, scale.shape)
    zero = np.rint(drawn).astype("u1") if zeros == "u1" else drawn.astype(zeros) if zeros else None
    limit = 0.0
    if check:
        # K + 4 roundings of 2^-24 of sums of magnitudes, those of codes and zero points apart; then the dtype's own.
        middle = 2.0 ** (bits - 1)
        away = np.abs(codes(words, bits, depth) - middle)
        away += 0 if zero is None else np.abs(spread(zero, cols) - middle)
        largest = float((np.abs(x.astype(np.float64)) @ (spread(scale, cols) * away).T).max(initial=0))
        limit = ((depth + 4) * 2.0**-24 + np.finfo(x.dtype).eps / 2 * (dtype != "f4")) * largest
    name = f"{rows}x{cols}x{depth}-b{bits}-g{group}-{zeros or 'none'}-{dtype}"
    moved = words.nbytes + scale.nbytes + (0 if zero is None else zero.nbytes) + x.nbytes + x.itemsize * rows * cols
    options = {"bits": bits, "group": group}
    args = (x, words, scale, zero)
    return Case(name, args, options, wna16_by_input, limit, bytes=moved, flops=2 * rows * cols * depth)


def cases() -> list[Case]:
    """Every width of codes; groups of one row and of all; one row of x, a few and many."""
    shapes = [(0, 4, 8, 2), (1, 1, 1, 1), (1, 140, 41, 70), (3, 65, 96, 13), (8, 6, 7, 3), (17, 258, 40, 86)]
    found = [
        case(*shape[:3], bits, shape[3], zeros)
        for bits in range(1, 9)
        for shape in shapes
        for zeros in ("", "u1", "f4")
    ]
    return found + [case(rows, 8, 128, 4, 4, zeros, "f2") for rows in (1, 12) for zeros in ("", "u1", "f2")]
