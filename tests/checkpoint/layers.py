"""Quantized layers to write and read: round-to-nearest of random weights, no solver."""

from __future__ import annotations

import numpy as np

from subbyte import kernels
from subbyte.schemes import Scheme
from subbyte.tensors import QuantizedLayer, QuantizedTensor


def nearest(weight: np.ndarray, text: str) -> QuantizedTensor:
    """The weight [O, I] f32 rounded to the nearest codes of a scheme, scales in the scheme's scale dtype."""
    scheme = Scheme.parse(text)
    rows, cols = weight.shape
    flat = np.ascontiguousarray(weight.reshape(1, -1) if scheme.granularity == "tensor" else weight)
    group = scheme.group(cols) if scheme.granularity == "group" else -1
    dtype = "f32" if scheme.scale_dtype == "auto" else scheme.scale_dtype
    if scheme.float_zero:
        codes, scale, zero, _ = kernels.half_quadratic(flat, scheme.bits, group=group, scale_dtype=dtype)
        return QuantizedTensor.from_codes(codes.reshape(rows, cols), scale, zero, scheme)
    scale, zero = kernels.fit_affine(
        flat, scheme.bits, group=group, symmetric=scheme.symmetric, narrow=scheme.narrow, scale_dtype=dtype
    )
    codes = kernels.quantize_affine(flat, scale, zero, scheme.bits, group=group)
    return QuantizedTensor.from_codes(codes.reshape(rows, cols), scale, zero, scheme)


def layer(text: str, activation: str | None = None, rows: int = 40, cols: int = 96, seed: int = 1) -> QuantizedLayer:
    """A random layer; a static activation gets the input scale 0.0375."""
    weight = np.random.default_rng(seed).standard_normal((rows, cols), np.float32)
    inputs = None if activation is None else Scheme.parse(activation)
    return QuantizedLayer(nearest(weight, text), inputs, 0.0375 if inputs is not None and inputs.static else None)
