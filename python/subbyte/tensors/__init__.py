"""Weights as codes: `QuantizedTensor` (codes, scales, zero points), `TableTensor` (codes of values), `CodebookTensor`
(codes of vectors that are the same for all), `VectorTensor` (codes of vectors in codebooks of its own), `Decomposition`
(codes beside `Sparse` entries and `Kept` columns), `Rotated` (codes between two `Rotation`s), and `QuantizedLayer`
(what a linear needs)."""

from __future__ import annotations

from subbyte.tensors.codebook import CodebookTensor
from subbyte.tensors.decomposition import Decomposition, Kept
from subbyte.tensors.layer import QuantizedLayer, Weight
from subbyte.tensors.quantized import QuantizedTensor
from subbyte.tensors.rotated import Rotated, rotate, unrotate
from subbyte.tensors.rotation import Butterfly, Rotation, halves, turn
from subbyte.tensors.sparse import Sparse
from subbyte.tensors.table import TableTensor
from subbyte.tensors.vectors import Coded, VectorTensor

__all__ = [
    "Butterfly",
    "CodebookTensor",
    "Coded",
    "Decomposition",
    "Kept",
    "QuantizedLayer",
    "QuantizedTensor",
    "Rotated",
    "Rotation",
    "Sparse",
    "TableTensor",
    "VectorTensor",
    "Weight",
    "halves",
    "rotate",
    "turn",
    "unrotate",
]
