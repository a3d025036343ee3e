"""cuda/hadamard/*.cu under the names and conventions of subbyte.kernels."""

from __future__ import annotations

import math
from typing import Any

from subbyte.cuda.arrays import View, empty, exported, view
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError

__all__ = ["hadamard"]

THREADS, SHORT, LONGEST = 256, 256, 2**15  # threads; the longest rows without shared memory, and with it
EACH = 2048  # numbers of short rows that a block transforms


def hadamard(x: Any, scale: float | None = None, transpose: bool = False, *, stream: object = None) -> Any:
    """The last axis times the Sylvester-Hadamard matrix: scale * H x, the bits of the CPU.

    x          [..., n] f32, n a power of two to 32768, torch, CuPy or JAX, contiguous, on a CUDA device
    scale      None: 1 / sqrt(n)
    transpose  no difference: H is symmetric
    stream     where it runs: None is the framework's current stream; else as in `launch`
    returns    [..., n] f32, framework and device of x

    Raises DtypeError, ShapeError, StrideError, DeviceError, RangeError, DriverError, DependencyError.
    """
    seen = view("x", x)
    rows, n = check(seen)
    y = empty(x, seen.framework, seen.shape)
    if rows == 0:
        return y
    arrays = [seen, exported("y", y)]
    factor = 1 / math.sqrt(n) if scale is None else float(scale)
    if n <= SHORT:
        grid = math.ceil(rows * n / EACH), 1
        start("hadamard", "hadamard_short", seen, grid, THREADS, arrays, (rows * n, n, factor), stream=stream)
    else:
        numbers = rows * n, n, factor
        start("hadamard", "hadamard_long", seen, (rows, 1), THREADS, arrays, numbers, shared=4 * n, stream=stream)
    return y


def check(x: View) -> tuple[int, int]:
    """Rows and their length; raises what hadamard raises."""
    x.expect("f32")
    if not x.shape:
        raise ShapeError("x", "a scalar", "[..., n]")
    n = x.shape[-1]
    if n.bit_count() != 1 or n > LONGEST:
        raise RangeError("n", n, f"a power of two to {LONGEST}")
    if math.prod(x.shape) >= 2**32:
        raise RangeError("x", f"{math.prod(x.shape)} numbers", "fewer than 2^32", "pass fewer rows at a time")
    return math.prod(x.shape[:-1]), n
