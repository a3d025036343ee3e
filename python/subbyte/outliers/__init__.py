"""What is kept beside the codes, and how it is chosen: the largest scores, one by one or in whole columns; where scores
are gradients, by a backward pass of the float model (`subbyte.outliers.gradient`, which needs torch)."""

from __future__ import annotations

from subbyte.outliers.choice import Reduce, Score, largest, largest_columns

__all__ = ["Reduce", "Score", "largest", "largest_columns"]
