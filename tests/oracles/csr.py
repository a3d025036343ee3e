"""The sparse matrix written out as a dense one, entry by entry, and a product in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def spread(values: np.ndarray, columns: np.ndarray, pointers: np.ndarray, depth: int) -> np.ndarray:
    """[N, K] f64."""
    dense = np.zeros((len(pointers) - 1, depth))
    for row in range(len(dense)):
        for entry in range(pointers[row], pointers[row + 1]):
            dense[row, columns[entry]] += float(values[entry])
    return dense


def csr(
    x: np.ndarray, values: np.ndarray, columns: np.ndarray, pointers: np.ndarray, base: np.ndarray | None = None
) -> np.ndarray:
    """base + x S^T, rounded once."""
    product = x.astype(np.float64) @ spread(values, columns, pointers, x.shape[-1]).T
    return (product if base is None else base + product).astype(x.dtype)


def bound(
    x: np.ndarray, values: np.ndarray, columns: np.ndarray, pointers: np.ndarray, base: np.ndarray | None
) -> float:
    """E + 1 roundings of 2^-24 of a sum no larger than that of magnitudes, in any order; then the dtype's own."""
    sums = np.abs(x.astype(np.float64)) @ spread(np.abs(values), columns, pointers, x.shape[-1]).T
    largest = float((sums + (0 if base is None else np.abs(base))).max(initial=0))
    entries = int(np.diff(pointers).max(initial=0))
    return ((entries + 1) * 2.0**-24 + np.finfo(x.dtype).eps / 2 * (x.dtype != np.float32)) * largest


def case(
    rows: int, cols: int, depth: int, share: float, dtype: str = "f2", x_dtype: str = "f4", based: bool = True
) -> Case:
    """About `share` of all places taken at random, some rows without any."""
    random = np.random.default_rng(rows + cols + depth)
    taken = random.random((cols, depth)) < share
    taken[cols // 2] = False
    columns = np.nonzero(taken)[1].astype(np.uint16 if depth <= 1 << 16 else np.int32)
    pointers = np.concatenate([[0], np.cumsum(taken.sum(axis=1))]).astype(np.int32)
    values = random.standard_normal(len(columns)).astype(dtype)
    x = random.standard_normal((rows, depth)).astype(x_dtype)
    base = random.standard_normal((rows, cols)).astype(x_dtype) if based else None
    args = (x, values, columns, pointers, base)
    limit = bound(*args) if cols * depth < 1 << 22 else 0.0
    moved = values.nbytes + columns.nbytes + pointers.nbytes + x.nbytes + 2 * rows * cols * x.itemsize
    name = (
        f"{rows}x{cols}x{depth}-{share:g}-{dtype}" + ("" if x_dtype == "f4" else f"-{x_dtype}") + "-alone" * (not based)
    )
    return Case(name, args, {}, csr, limit, bytes=moved, flops=2 * rows * len(values))


def cases() -> list[Case]:
    """Rows of x around both bodies and their tiles; rows of S around the panels; full, thin and empty matrices."""
    found = [case(rows, 70, 40, 0.2) for rows in (0, 1, 4, 5, 16, 17, 35)]
    found += [case(rows, cols, depth, 0.3) for rows in (2, 6) for cols, depth in ((1, 1), (64, 9), (65, 130))]
    found += [
        case(rows, 9, 50, share, dtype) for rows in (1, 7) for share in (0.0, 0.05, 1.0) for dtype in ("f2", "f4")
    ]
    found += [case(rows, 9, 50, 0.2, x_dtype="f2", based=based) for rows in (1, 7) for based in (False, True)]
    return [*found, *(case(rows, 3, 65_600, 0.001) for rows in (1, 7))]


def large(rows: int, cols: int, depth: int) -> Case:
    """For the bench: one weight in a hundred."""
    return case(rows, cols, depth, 0.01)
