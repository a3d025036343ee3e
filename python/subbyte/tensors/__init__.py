"""Weights as codes: `QuantizedTensor` (codes, scales, zero points) and `QuantizedLayer` (what a linear needs)."""

from __future__ import annotations

from subbyte.tensors.layer import QuantizedLayer
from subbyte.tensors.quantized import QuantizedTensor

__all__ = ["QuantizedLayer", "QuantizedTensor"]
