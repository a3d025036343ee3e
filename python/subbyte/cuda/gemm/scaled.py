"""What the integer products share: arguments that scale their sums, and a launch that cuts K where that helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, empty, exported
from subbyte.cuda.gemm.split import split
from subbyte.cuda.gemm.tuned import choose
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError

__all__ = ["DEPTH", "Tile", "expect_scales", "product"]

DEPTH, SUM_THREADS = 128, 256  # columns of K in a stage; threads of w8a8_sum


@dataclass(frozen=True)
class Tile:
    """What a block computes: rows and columns of y, by that many threads, with so many stages of `depth` columns.

    together   blocks that a multiprocessor runs at once
    of_hopper  the entry is one of cuda/gemm/<kernel>_sm90a.cu
    """

    entry: str
    rows: int
    columns: int
    threads: int
    stages: int
    depth: int = DEPTH
    together: int = 2
    of_hopper: bool = False


def product(
    kernel: str,
    tiles: Sequence[Tile],
    x: Any,
    operands: list[View | None],
    scales: list[View | None],
    sizes: list[int],
    row_bytes: tuple[int, int],
    stream: object,
) -> Any:
    """Launches an entry on `operands`, x first, and `scales` (x_scale, w_scale, bias); y [M, N] f32 beside x.

    tiles      those that the device has (subbyte.cuda.gemm.tuned)
    sizes      M, N, K and what else the entry wants
    row_bytes  of a row of x, and of the weight, in a stage
    """
    seen, (m, n, k, *_) = operands[0], sizes
    assert seen is not None
    y = empty(x, seen.framework, (m, n), "float32")
    rows, slices = choose(kernel, seen.device, (m, n, k))
    tile = next(tile for tile in tiles if tile.rows == rows)
    blocks = math.ceil(m / tile.rows) * math.ceil(n / tile.columns)
    if blocks == 0:
        return y
    result, steps = exported("y", y), [int(each is not None and each.shape[0] > 1) for each in scales[:2]]
    slices, depth = split(blocks, k, driver.multiprocessors(seen.device), tile.depth, tile.together, slices)
    parts = exported("parts", empty(x, seen.framework, (slices, m, n), "int32")) if slices > 1 else None
    arrays, numbers = [*operands, *scales, result, parts], [*sizes, *steps, depth]
    grid, shared = (blocks, slices), tile.stages * (tile.rows * row_bytes[0] + tile.columns * row_bytes[1])
    file = f"{kernel}_sm90a" if tile.of_hopper else kernel
    start(file, tile.entry, seen, grid, tile.threads, arrays, numbers, shared=shared, stream=stream)
    if parts is not None:
        grid, arrays = (math.ceil(m * n / SUM_THREADS), 1), [parts, *scales, result]
        start("w8a8", "w8a8_sum", seen, grid, SUM_THREADS, arrays, [slices, m, n, *steps], stream=stream)
    return y


def expect_scales(x: View, k: int, x_scale: tuple[View, int], w_scale: tuple[View, int], bias: View | None) -> None:
    """Raises what does not fit: a sum that could overflow, scales beside their number of rows, the bias."""
    if k >= 2**17:
        raise RangeError("K", k, "below 2^17, so that an int32 holds every sum")
    for given, rows in (x_scale, w_scale, (bias, w_scale[1])):
        if given is None:
            continue
        given.expect("f32", beside=x)
        if given.shape not in ((rows,), (1,)) or (given is bias and given.shape != (rows,)):
            raise ShapeError(given.what, given.shape, f"({rows},)" + ("" if given is bias else " or (1,)"))
    m, n = x_scale[1], w_scale[1]
    if max(m, n) >= 2**31 or math.ceil(m / 16) * math.ceil(n / 64) >= 2**31:
        raise RangeError("x and the weight", f"M, N = {m}, {n}", "each, and the tiles of the result, below 2^31")
