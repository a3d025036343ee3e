"""Sparse: what lies outside the codes' reach, entry by entry, in compressed rows (CSR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from subbyte.errors import DtypeError, NotFiniteError, RangeError, ShapeError

__all__ = ["Sparse"]

NARROW = 1 << 16
"""Columns up to which two bytes hold the number of one."""


@dataclass(frozen=True, eq=False, slots=True)
class Sparse:
    """A matrix [O, I] of which few elements are not zero; S[o, columns[e]] = values[e] for the entries e of row o.

    shape     (O, I)
    values    [E] f16, or f32, finite
    columns   [E] u16, or i32 where I is above 65536; in each row they rise
    pointers  [O + 1] i32: the entries of row o are pointers[o] to pointers[o + 1] - 1

    Arrays are kept, not copied, and never changed. Raises ShapeError, DtypeError, RangeError (pointers or columns that
    do not rise, or outside), NotFiniteError (values).
    """

    shape: tuple[int, int]
    values: npt.NDArray[Any]
    columns: npt.NDArray[Any]
    pointers: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        rows, cols = self.shape
        narrow = np.uint16 if cols <= NARROW else np.int32
        for what, array, dtypes in (
            ("values", self.values, (np.float16, np.float32)),
            ("columns", self.columns, (narrow,)),
            ("pointers", self.pointers, (np.int32,)),
        ):
            if not isinstance(array, np.ndarray) or array.dtype not in dtypes:
                expected = " or ".join(str(np.dtype(dtype)) for dtype in dtypes)
                raise DtypeError(what, getattr(array, "dtype", type(array).__name__), f"a NumPy array of {expected}")
            if array.ndim != 1:
                raise ShapeError(what, list(array.shape), "one axis")
        pointers, columns, count = self.pointers, self.columns, len(self.values)
        if len(columns) != count:
            raise ShapeError("columns", len(columns), f"{count}, one for each value")
        if len(pointers) != rows + 1:
            raise ShapeError("pointers", len(pointers), f"{rows + 1}, one more than rows")
        if int(pointers[0]) != 0 or int(pointers[-1]) != count or (np.diff(pointers.astype(np.int64)) < 0).any():
            given = f"{int(pointers[0])} to {int(pointers[-1])}"
            raise RangeError("pointers", given, f"numbers that rise from 0 to {count}")
        if count and (int(columns.min()) < 0 or int(columns.max()) >= cols):
            raise RangeError("columns", f"{int(columns.min())} to {int(columns.max())}", f"0 to {cols - 1}")
        falls = np.flatnonzero(np.diff(columns.astype(np.int64)) <= 0) + 1
        if np.setdiff1d(falls, pointers).size:
            raise RangeError("columns", "columns that fall or repeat inside a row", "columns that rise in each row")
        if not np.isfinite(self.values).all():
            raise NotFiniteError("values", "NaN or infinity", "finite numbers")

    @classmethod
    def of(cls, weight: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> Sparse:
        """The elements of `weight` [O, I] f32 where `mask` [O, I] is true, zeros too, rounded to f16.

        In f32 where one of them is too large for f16. Raises ShapeError, NotFiniteError.
        """
        if mask.shape != weight.shape or weight.ndim != 2:
            raise ShapeError("mask", list(mask.shape), f"{list(weight.shape)}, as the weight")
        rows, columns = np.nonzero(mask)
        values: npt.NDArray[Any] = weight[rows, columns]
        if not np.isfinite(values).all():
            raise NotFiniteError("weight", "NaN or infinity", "finite numbers")
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        counts = np.bincount(rows, minlength=len(weight))
        return cls(
            (weight.shape[0], weight.shape[1]),
            halves if np.isfinite(halves).all() else values.astype(np.float32),
            columns.astype(np.uint16 if weight.shape[1] <= NARROW else np.int32),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        )

    def dense(self) -> npt.NDArray[np.float32]:
        """[O, I] f32, newly allocated."""
        dense = np.zeros(self.shape, np.float32)
        dense[np.repeat(np.arange(self.shape[0]), np.diff(self.pointers)), self.columns] = self.values
        return dense

    @property
    def nbytes(self) -> int:
        """Bytes of values, columns and pointers."""
        return self.values.nbytes + self.columns.nbytes + self.pointers.nbytes
