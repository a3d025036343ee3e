"""Values of tables looked up one after the other, as they are; and the layout by the number of each code."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def blocks_of(codes: np.ndarray) -> np.ndarray:
    """Codes [N, M] below 16 in the layout "scan"; rows that the last block lacks are zeros."""
    rows, parts = codes.shape
    blocks = np.zeros((-(-rows // 32), parts, 16), np.uint8)
    for row, part in np.ndindex(codes.shape):
        block, place = divmod(row, 32)
        blocks[block, part, place % 16] |= codes[row, part] << 4 * (place // 16)
    return blocks


def codes_of(blocks: np.ndarray, rows: int) -> np.ndarray:
    """The inverse: codes [rows, M]."""
    both = np.concatenate([blocks & 15, blocks >> 4], axis=2)
    return both.transpose(0, 2, 1).reshape(32 * len(blocks), blocks.shape[1])[:rows]


def exact(tables: np.ndarray, blocks: np.ndarray, rows: int) -> np.ndarray:
    """The sums [Q, rows] of the values themselves, in f64."""
    codes = codes_of(blocks, rows)
    sums = np.zeros((len(tables), rows))
    for part in range(codes.shape[1]):
        sums += tables[:, part, codes[:, part]].astype(np.float64)
    return sums


def steps(tables: np.ndarray) -> np.ndarray:
    """The step of each query: its widest table in 255, or all in what is left of 16 bits with half a unit for each."""
    ranges = np.ptp(tables.astype(np.float64), axis=2) if tables.size else np.zeros(tables.shape[:2])
    parts = tables.shape[1]
    widest, all_ = ranges.max(axis=1, initial=0), ranges.sum(axis=1)
    return np.maximum(widest / 255, all_ / (65535 - parts / 2))


def product_scan(tables: np.ndarray, blocks: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The sums that tables of bytes give, and half a step for each part."""
    step, codes = steps(tables), codes_of(blocks, rows)
    sums = np.zeros((len(tables), rows), np.float64)
    for query, values in enumerate(tables.astype(np.float64)):
        total = np.zeros(rows, np.int64)
        for part, table in enumerate(values):
            scaled = (table - table.min()) / step[query] if step[query] else np.zeros(16)
            total += np.floor(scaled + 0.5).astype(np.int64)[codes[:, part]]
        assert total.max(initial=0) < 1 << 16
        sums[query] = total * step[query] + values.min(axis=1, initial=np.inf).sum()
    return sums.astype(np.float32), (step * tables.shape[1] / 2).astype(np.float32)


def case(queries: int, rows: int, parts: int, seed: int = 68) -> Case:
    """Tables of several widths and signs; from the oracle the kernel differs by the roundings of its f32 at the end."""
    random = np.random.default_rng(seed)
    tables = random.standard_normal((queries, parts, 16)) * random.uniform(0.1, 2, (queries, parts, 1))
    blocks = random.integers(0, 256, (-(-rows // 32), parts, 16), np.uint8)
    tables = tables.astype(np.float32)
    bound = 4 * 2.0**-24 * max(float(np.abs(tables).max(axis=2, initial=0).sum(axis=1).max(initial=0)), 1e-30)
    moved = blocks.nbytes + 4 * queries * rows
    name = f"{queries}x{rows}x{parts}"
    return Case(
        name, (tables, blocks), {"rows": rows}, product_scan, bound=bound, bytes=moved, flops=queries * rows * parts
    )


def cases() -> list[Case]:
    """Rows around a block, odd parts and queries, more parts than bytes fit in 16 bits, more than one task."""
    shapes = [
        (0, 5, 3),
        (2, 0, 3),
        (2, 3, 0),
        (1, 1, 1),
        (3, 31, 2),
        (2, 32, 4),
        (1, 33, 5),
        (5, 100, 33),
        (2, 40, 700),
    ]
    return [case(*shape) for shape in [*shapes, (3, 40_001, 24)]]


def large(queries: int, rows: int, parts: int) -> Case:
    """For the bench."""
    return case(queries, rows, parts)
