"""Decomposition: a weight as the sum of codes and of what is kept aside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from subbyte.errors import DtypeError, NotFiniteError, RangeError, ShapeError
from subbyte.schemes import Scheme
from subbyte.tensors.quantized import QuantizedTensor
from subbyte.tensors.sparse import Sparse

__all__ = ["Decomposition", "Kept"]


@dataclass(frozen=True, eq=False, slots=True)
class Kept:
    """Whole columns of a weight in 16 bits.

    values   [O, k] f16, or f32, finite
    columns  [k] i32, rising, each at least 0

    Raises ShapeError, DtypeError, RangeError (columns), NotFiniteError (values).
    """

    values: npt.NDArray[Any]
    columns: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        values, columns = self.values, self.columns
        if values.dtype not in (np.float16, np.float32) or columns.dtype != np.int32:
            given = f"values {values.dtype}, columns {columns.dtype}"
            raise DtypeError("kept columns", given, "values float16 or float32, columns int32")
        if values.ndim != 2 or columns.shape != values.shape[1:]:
            raise ShapeError("kept columns", f"{list(values.shape)} and {list(columns.shape)}", "[O, k] and [k]")
        if (np.diff(columns.astype(np.int64)) <= 0).any() or (len(columns) and int(columns[0]) < 0):
            raise RangeError("kept columns", "numbers that do not rise from 0 on", "rising numbers of columns")
        if not np.isfinite(values).all():
            raise NotFiniteError("kept columns", "NaN or infinity", "finite numbers")

    @classmethod
    def of(cls, weight: npt.NDArray[np.float32], columns: npt.NDArray[np.integer[Any]]) -> Kept:
        """These columns of `weight` [O, I] f32, rounded to f16; in f32 where one value is too large for that."""
        chosen = np.sort(columns).astype(np.int32)
        values = np.ascontiguousarray(weight[:, chosen])
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        return cls(halves if np.isfinite(halves).all() else values, chosen)

    @property
    def nbytes(self) -> int:
        """Bytes of values and numbers of columns."""
        return self.values.nbytes + self.columns.nbytes


@dataclass(frozen=True, eq=False, slots=True)
class Decomposition:
    """A weight [O, I] that is the sum of its parts: codes, sparse entries, and whole columns. Parts may overlap.

    Raises ShapeError (parts of another shape, or neither entries nor columns: that is a QuantizedTensor), RangeError.
    """

    dense: QuantizedTensor
    sparse: Sparse | None = None
    kept: Kept | None = None

    def __post_init__(self) -> None:
        if self.sparse is None and self.kept is None:
            raise ShapeError("decomposition", "codes alone", "entries or columns beside them", "use the tensor itself")
        if self.sparse is not None and self.sparse.shape != self.dense.shape:
            raise ShapeError("sparse part", list(self.sparse.shape), list(self.dense.shape))
        if self.kept is not None:
            rows, cols = self.dense.shape
            if len(self.kept.values) != rows:
                raise ShapeError("kept columns", f"{len(self.kept.values)} rows", f"{rows} rows")
            if self.kept.columns.size and int(self.kept.columns[-1]) >= cols:
                raise RangeError("kept columns", int(self.kept.columns[-1]), f"0 to {cols - 1}")

    @classmethod
    def around(
        cls, dense: QuantizedTensor, weight: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]
    ) -> QuantizedTensor | Decomposition:
        """`dense` with entries that make up `weight` [O, I] f32 where the mask [O, I] is; alone for an empty mask."""
        return cls(dense, Sparse.of(weight - dense.dequantize(), mask)) if mask.any() else dense

    @property
    def scheme(self) -> Scheme:
        """That of the codes."""
        return self.dense.scheme

    @property
    def shape(self) -> tuple[int, int]:
        """(O, I)."""
        return self.dense.shape

    def codes(self) -> npt.NDArray[np.uint8]:
        """Those of the dense part: [O, I] u8, newly allocated."""
        return self.dense.codes()

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The weight that the parts add up to: [O, I] f32, newly allocated; each addition is rounded once."""
        weight = self.dense.dequantize()
        if self.sparse is not None:
            weight += self.sparse.dense()
        if self.kept is not None:
            weight[:, self.kept.columns] += self.kept.values
        return weight

    @property
    def nbytes(self) -> int:
        """Bytes that all parts take when stored."""
        return self.dense.nbytes + sum(part.nbytes for part in (self.sparse, self.kept) if part is not None)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each weight; 0.0 for a weight without any."""
        count = self.shape[0] * self.shape[1]
        return 8 * self.nbytes / count if count else 0.0
