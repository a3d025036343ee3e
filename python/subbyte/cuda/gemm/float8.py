"""What the products of 8-bit floats share: one launch with slices of K where those help (cuda/common/float8.cuh)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, empty, exported
from subbyte.cuda.gemm.split import add, split
from subbyte.cuda.start import start
from subbyte.errors import ShapeError

__all__ = ["COLUMNS", "DEPTH", "Block", "block", "expect_bias", "product"]

COLUMNS, DEPTH, FEW = 128, 128, 16


@dataclass(frozen=True)
class Block:
    """An entry of cuda/gemm/<kernel>.cu: threads of a block, bytes of its shared memory, how many fit at once."""

    kernel: str
    entry: str
    threads: int
    shared: int
    together: int = 2


def block(kernel: str, kind: str, rows: int, *, wgmma: bool = False, row_bytes: int = DEPTH) -> Block:
    """The entry for tiles of `rows` rows of x, `kind` being what its name says besides.

    wgmma      that of <kernel>_sm90a.cu, which stands where there are more than 16 rows
    row_bytes  of each row of the weight in a stage
    """
    if wgmma and rows > FEW:
        name, room = f"{kernel}_sm90a", 4 * (rows * DEPTH + COLUMNS * row_bytes)
        if row_bytes == DEPTH:
            room += 4 * 4 * (rows + COLUMNS)  # a scale for each row of the four stages
        else:
            # The weights of a stage as 8-bit floats, with a scale for either half of a row.
            room += COLUMNS * (DEPTH + 2 * 4)
        return Block(name, f"{name}_{kind}_m{rows}", 2 * rows, room, together=128 // rows)
    return Block(kernel, f"{kernel}_{kind}_m{rows}", 256, 3 * (rows * DEPTH + COLUMNS * row_bytes))


def product(
    block: Block,
    x: Any,
    operands: list[View | None],
    shape: tuple[int, int],
    k: int,
    blocks: int,
    numbers: Sequence[int | float],
    stream: object,
    step: int = DEPTH,
    slices: int = 0,
) -> Any:
    """Launches an entry on `operands`, x first; y of `shape` [rows, N] f32 beside x.

    blocks   tiles of y
    numbers  what the entry wants in front of the columns of a slice of K
    step     columns of K in a stage
    slices   of K, at most; 0: as many as occupy the card
    """
    seen, (m, n) = operands[0], shape
    assert seen is not None
    y = empty(x, seen.framework, shape, "float32")
    if blocks == 0:
        return y
    result = exported("y", y)
    slices, depth = split(blocks, k, driver.multiprocessors(seen.device), step, block.together, slices)
    parts = exported("parts", empty(x, seen.framework, (slices, m, n), "float32")) if slices > 1 else None
    arrays, values = [*operands, result, parts], [*numbers, depth]
    grid = (blocks, slices)
    start(block.kernel, block.entry, seen, grid, block.threads, arrays, values, shared=block.shared, stream=stream)
    if parts is not None:
        add(parts, result, stream)
    return y


def expect_bias(bias: View | None, beside: View, shape: tuple[int, ...]) -> None:
    """Raises unless there is no bias, or one of that shape."""
    if bias is not None:
        bias.expect("f32", beside=beside)
        if bias.shape != shape:
            raise ShapeError("bias", bias.shape, str(shape))
