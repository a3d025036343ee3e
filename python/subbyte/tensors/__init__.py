"""Weights as codes: `QuantizedTensor` (codes, scales, zero points), `Decomposition` (codes beside `Sparse` entries and
`Kept` columns), and `QuantizedLayer` (what a linear needs)."""

from __future__ import annotations

from subbyte.tensors.decomposition import Decomposition, Kept, Weight
from subbyte.tensors.layer import QuantizedLayer
from subbyte.tensors.quantized import QuantizedTensor
from subbyte.tensors.sparse import Sparse

__all__ = ["Decomposition", "Kept", "QuantizedLayer", "QuantizedTensor", "Sparse", "Weight"]
