"""Rows that are sorted by their expert, as the grouped products take them: cuda/common/experts.cuh."""

from __future__ import annotations

from subbyte.cuda.arrays import View
from subbyte.errors import ShapeError

__all__ = ["expect_experts", "row_tiles"]


def row_tiles(r: int, experts: int, rows: int) -> int:
    """Tiles of `rows` rows that there can be, however R rows lie on the experts."""
    return r // rows + min(experts, r)


def expect_experts(x: View, weight: View, offsets: View, rows: View | None) -> int:
    """How many rows the result has; raises what does not fit x [T, K] and a weight [E, ...]."""
    experts, r = weight.shape[0], x.shape[0]
    offsets.expect("i32", beside=x)
    if offsets.shape != (experts + 1,):
        raise ShapeError("offsets", offsets.shape, f"({experts + 1},)")
    if rows is not None:
        rows.expect("i32", beside=x)
        if len(rows.shape) != 1:
            raise ShapeError("rows", rows.shape, "[R]")
        r = rows.shape[0]
    if r and not experts:
        raise ShapeError(weight.what, weight.shape, f"at least one expert for {r} rows")
    return r
