"""What is kept beside the codes, and how it is chosen: the largest scores, one by one or in whole columns."""

from __future__ import annotations

from subbyte.outliers.choice import largest, largest_columns

__all__ = ["largest", "largest_columns"]
