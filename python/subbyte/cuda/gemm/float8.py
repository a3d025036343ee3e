"""What the products of 8-bit floats share: one launch with slices of K where those help (cuda/common/float8.cuh)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, empty, exported
from subbyte.cuda.gemm.split import add, split
from subbyte.cuda.start import start
from subbyte.errors import ShapeError

__all__ = ["COLUMNS", "DEPTH", "expect_bias", "product", "shared"]

COLUMNS, DEPTH, STAGES, THREADS = 128, 128, 3, 256


def product(
    kernel: str,
    entry: str,
    x: Any,
    operands: list[View | None],
    shape: tuple[int, int],
    k: int,
    blocks: int,
    numbers: Sequence[int | float],
    room: int,
    stream: object,
    step: int = DEPTH,
    slices: int = 0,
) -> Any:
    """Launches an entry of cuda/gemm/<kernel>.cu on `operands`, x first; y of `shape` [rows, N] f32 beside x.

    blocks   tiles of y
    numbers  what the entry wants in front of the columns of a slice of K
    room     bytes of shared memory of a block
    step     columns of K in a stage
    slices   of K, at most; 0: as many as occupy the card
    """
    seen, (m, n) = operands[0], shape
    assert seen is not None
    y = empty(x, seen.framework, shape, "float32")
    if blocks == 0:
        return y
    result = exported("y", y)
    slices, depth = split(blocks, k, driver.multiprocessors(seen.device), step, slices=slices)
    parts = exported("parts", empty(x, seen.framework, (slices, m, n), "float32")) if slices > 1 else None
    arrays, values = [*operands, result, parts], [*numbers, depth]
    start(kernel, entry, seen, (blocks, slices), THREADS, arrays, values, shared=room, stream=stream)
    if parts is not None:
        add(parts, result, stream)
    return y


def shared(rows: int, row_bytes: int = DEPTH) -> int:
    """Bytes of shared memory of a block for `rows` rows of x, and `row_bytes` of each row of the weight in a stage."""
    return STAGES * (rows * DEPTH + COLUMNS * row_bytes)


def expect_bias(bias: View | None, beside: View, shape: tuple[int, ...]) -> None:
    """Raises unless there is no bias, or one of that shape."""
    if bias is not None:
        bias.expect("f32", beside=beside)
        if bias.shape != shape:
            raise ShapeError("bias", bias.shape, str(shape))
