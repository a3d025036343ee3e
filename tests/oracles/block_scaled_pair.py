"""Both operands by the oracle of `block_scaled`, code by code; the product in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles import block_scaled as one
from tests.oracles.block_scaled import decoded
from tests.oracles.case import Case
from tests.oracles.dequantize_block import BLOCKS, ELEMENTS


def block_scaled_pair(
    x: np.ndarray,
    words: np.ndarray,
    x_scale: np.ndarray,
    w_scale: np.ndarray,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
) -> np.ndarray:
    """X W^T * tensor_scale, rounded once."""
    options, depth = (element, block, scale_dtype, 1.0), x_scale.shape[1] * block
    with np.errstate(invalid="ignore"):
        total = decoded(x, x_scale, depth, *options) @ decoded(words, w_scale, depth, *options).T
    return (total * np.float32(tensor_scale)).astype(np.float32)


def case(
    rows: int,
    cols: int,
    depth: int,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
    check: bool = True,
) -> Case:
    """Random finite codes, scales around 1/16."""
    (_, words, w_scale), (_, x, x_scale) = (
        one.case(0, count, depth, element, block, scale_dtype, check=False).args for count in (cols, rows + cols)
    )
    x, x_scale = x[cols:].copy(), x_scale[cols:].copy()  # other codes than those of the weight
    options = {"element": element, "block": block, "scale_dtype": scale_dtype, "tensor_scale": tensor_scale}
    limit = 0.0
    if check:
        kind = (element, block, scale_dtype, 1.0)
        size = abs(decoded(x, x_scale, depth, *kind)) @ abs(decoded(words, w_scale, depth, *kind)).T
        # K + 4 roundings of f32, twice as wide where a tensor core adds; and that of the oracle
        limit = (depth + 5) * 2.0**-23 * float(size.max(initial=0)) * tensor_scale
    name = f"{rows}x{cols}x{depth}-{element}-{block}-{scale_dtype}-{tensor_scale:.2f}"
    moved = sum(array.nbytes for array in (x, words, x_scale, w_scale)) + 4 * rows * cols
    return Case(name, (x, words, x_scale, w_scale), options, block_scaled_pair, limit, moved, 2 * rows * cols * depth)


def cases() -> list[Case]:
    """Every element in every published block, few rows and many; nothing at all."""
    found = []
    for element in ELEMENTS:
        for block, scale_dtype in BLOCKS:
            shapes = [(1, 5, 96), (3, 2, 544), (50, 3, 64)]
            found += [case(*shape, element, block, scale_dtype, 1.0 if block == 32 else 0.3) for shape in shapes]
    return [*found, *(case(*shape, "e2m1") for shape in ((0, 3, 64), (3, 0, 64), (2, 3, 0)))]


def large(rows: int, cols: int, depth: int, element: str, block: int, scale_dtype: str) -> Case:
    """For the bench: words as they come, scales around one, so that products of both are normal numbers."""
    x, weight = (one.large(0, count, depth, element, block, scale_dtype) for count in (rows, cols))
    more = np.uint8(77 if scale_dtype == "e8m0" else 6)
    args = (x.args[1], weight.args[1], x.args[2] + more, weight.args[2] + more)
    moved = sum(array.nbytes for array in args) + 4 * rows * cols
    name = f"{rows}x{cols}x{depth}-{element}-{block}-{scale_dtype}"
    return Case(name, args, weight.kwargs, block_scaled_pair, 0.0, moved, 2 * rows * cols * depth)
