"""Weights as codes: `QuantizedTensor` (codes, scales, zero points) and `QuantizedLayer` (what a linear needs)."""

from __future__ import annotations

from .layer import QuantizedLayer
from .quantized import QuantizedTensor

__all__ = ["QuantizedLayer", "QuantizedTensor"]
