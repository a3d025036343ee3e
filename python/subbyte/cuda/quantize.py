"""cuda/quantize/*.cu under the names and conventions of subbyte.kernels."""

from __future__ import annotations

import math
from typing import Any

from subbyte.cuda.arrays import View, empty, exported, view
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError, UnknownNameError

__all__ = ["norm_quantize", "quantize_tokens"]

THREADS = 256
#: Formats of tokens: what holds a code, as frameworks call it, and the largest value.
FORMATS = {"int8": ("int8", 127.0), "e4m3fn": ("uint8", 448.0)}
NORMS = ("rms", "layer")


def quantize_tokens(x: Any, eps: float = 1e-5, format: str = "int8", *, stream: object = None) -> tuple[Any, Any]:
    """Each row by its own scale: codes = x / scale rounded, scale = max(max|x|, eps) / M, the bits of the CPU.

    x        [T, C] f32, f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device
    eps      least max|x|, above 0
    format   "int8" (M = 127) or "e4m3fn" (448)
    stream   where it runs: None is the framework's current stream; else as in `launch`
    returns  codes [T, C] i8, or u8 for e4m3fn; scale [T] f32; framework and device of x

    Raises DtypeError, ShapeError, StrideError, DeviceError, RangeError, UnknownNameError, DriverError, DependencyError.
    """
    seen = view("x", x)
    rows, cols = check(seen, eps, format)
    codes, scale = results(x, seen, format)
    if rows:
        arrays = [seen, exported("codes", codes), exported("scale", scale)]
        entry = f"quantize_tokens_{format}_{seen.dtype}"
        start("quantize_tokens", entry, seen, (rows, 1), THREADS, arrays, [cols, float(eps)], stream=stream)
    return codes, scale


def norm_quantize(
    x: Any,
    weight: Any,
    bias: Any | None = None,
    norm: str = "rms",
    norm_eps: float = 1e-5,
    eps: float = 1e-5,
    format: str = "int8",
    *,
    stream: object = None,
) -> tuple[Any, Any]:
    """A norm and the dynamic quantization of what it gives; all but always the bits of the CPU.

    x         [T, C] f32, f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    weight    [C], dtype of x
    bias      [C], dtype of x, or None
    norm      "rms" or "layer"
    norm_eps  added to the mean square, 0 or more
    eps       as in `quantize_tokens`, as are `format`, `stream` and what is returned

    Sums are f64 in another order than on the CPU (cuda/quantize/norm_quantize.cu). Raises as `quantize_tokens` does.
    """
    seen, factor = view("x", x), view("weight", weight)
    addend = None if bias is None else view("bias", bias)
    rows, cols = check(seen, eps, format)
    check_norm(seen, factor, addend, norm, norm_eps)
    codes, scale = results(x, seen, format)
    if rows:
        arrays = [seen, factor, addend, exported("codes", codes), exported("scale", scale)]
        entry, numbers = f"norm_quantize_{format}_{seen.dtype}", [cols, NORMS.index(norm), float(norm_eps), float(eps)]
        start("norm_quantize", entry, seen, (rows, 1), THREADS, arrays, numbers, stream=stream)
    return codes, scale


def results(x: Any, seen: View, format: str) -> tuple[Any, Any]:
    """Codes and scales for the rows of x, uninitialised."""
    codes = empty(x, seen.framework, seen.shape, FORMATS[format][0])
    return codes, empty(x, seen.framework, seen.shape[:1], "float32")


def check(x: View, eps: float, format: str) -> tuple[int, int]:
    """Rows and columns; raises what quantize_tokens raises."""
    if format not in FORMATS:
        raise UnknownNameError("format", repr(format), f"one of {', '.join(FORMATS)}")
    x.expect("f32", "f16", "bf16")
    if len(x.shape) != 2:
        raise ShapeError("x", x.shape, "[T, C]")
    # A scale is a normal number.
    if not (eps >= FORMATS[format][1] * 2.0**-126 and math.isfinite(eps)):
        raise RangeError("eps", eps, "a finite number above 5.3e-36")
    if max(x.shape) >= 2**31:
        raise RangeError("x", x.shape, "each below 2^31")
    return x.shape[0], x.shape[1]


def check_norm(x: View, weight: View, bias: View | None, norm: str, norm_eps: float) -> None:
    """Raises what norm_quantize raises beyond `check`."""
    if norm not in NORMS:
        raise UnknownNameError("norm", repr(norm), f"one of {', '.join(NORMS)}")
    if not (norm_eps >= 0 and math.isfinite(norm_eps)):
        raise RangeError("norm_eps", norm_eps, "a finite number, 0 or above")
    for given in (weight, bias):
        if given is not None:
            given.expect(x.dtype, beside=x)
            if given.shape != x.shape[1:]:
                raise ShapeError(given.what, given.shape, f"({x.shape[1]},)")
