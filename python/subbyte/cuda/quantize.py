"""cuda/quantize/*.cu under the names and conventions of subbyte.kernels."""

from __future__ import annotations

import math
from typing import Any

from subbyte.cuda.arrays import View, empty, exported, view
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError

__all__ = ["quantize_tokens"]

THREADS = 256
LEAST = 127 * 2.0**-126  # of eps: a scale is a normal number


def quantize_tokens(x: Any, eps: float = 1e-5, *, stream: object = None) -> tuple[Any, Any]:
    """Each row by its own scale: codes = rint(x / scale), scale = max(max|x|, eps) / 127, the bits of the CPU.

    x        [T, C] f32, torch, CuPy or JAX, contiguous, on a CUDA device
    eps      least max|x|, above 0
    stream   where it runs: None is the framework's current stream; else as in `launch`
    returns  codes [T, C] i8, scale [T] f32, framework and device of x

    Raises DtypeError, ShapeError, StrideError, DeviceError, RangeError, DriverError, DependencyError.
    """
    seen = view("x", x)
    rows, cols = check(seen, eps)
    codes = empty(x, seen.framework, (rows, cols), "int8")
    scale = empty(x, seen.framework, (rows,))
    if rows:
        arrays = [seen, exported("codes", codes), exported("scale", scale)]
        numbers = cols, float(eps)
        start("quantize_tokens", "quantize_tokens", seen, (rows, 1), THREADS, arrays, numbers, stream=stream)
    return codes, scale


def check(x: View, eps: float) -> tuple[int, int]:
    """Rows and columns; raises what quantize_tokens raises."""
    x.expect("f32")
    if len(x.shape) != 2:
        raise ShapeError("x", x.shape, "[T, C]")
    if not (eps >= LEAST and math.isfinite(eps)):
        raise RangeError("eps", eps, "a finite number above 1.5e-36")
    if max(x.shape) >= 2**31:
        raise RangeError("x", x.shape, "each below 2^31")
    return x.shape[0], x.shape[1]
