"""16-bit floats times a sparse weight: cuda/gemm/csr.cu."""

from __future__ import annotations

import math
from typing import Any

from subbyte.cuda.arrays import View, empty, exported, view
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError

__all__ = ["csr"]

THREADS, ROWS, COLUMNS = 256, 8, 8  # threads; rows and columns of the result of a block
TALLEST = 2**16 - 1  # blocks down a grid


def csr(x: Any, values: Any, columns: Any, pointers: Any, base: Any | None = None, *, stream: object = None) -> Any:
    """16-bit activations times a sparse weight, added to what a dense product gave: y = base + x S^T.

    x         [..., K] f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    values    [E] f32, f16 or bf16: the entries of S, row after row
    columns   [E] u16 or i32
    pointers  [N + 1] i32
    base      [..., N], dtype of x, or None: 0
    stream    as in `wna16`
    returns   [..., N], framework, dtype and device of x

    The host does not look at columns and pointers: a column that x has not makes its results NaN, as do pointers that
    fall or pass E. cuda/gemm/csr.cu states the bound. Raises as `wna16` does.
    """
    seen = view("x", x)
    others = view("values", values), view("columns", columns), view("pointers", pointers)
    addend = None if base is None else view("base", base)
    m, n, k, entries = check(seen, *others, addend)
    y = empty(x, seen.framework, (*seen.shape[:-1], n))
    if m and n:
        arrays, numbers = [seen, *others, addend, exported("y", y)], [m, n, k, entries]
        grid = math.ceil(n / COLUMNS), math.ceil(m / ROWS)
        entry = f"csr_{seen.dtype}_{others[0].dtype}_{others[1].dtype}"
        start("csr", entry, seen, grid, THREADS, arrays, numbers, stream=stream)
    return y


def check(x: View, values: View, columns: View, pointers: View, base: View | None) -> tuple[int, int, int, int]:
    """M, N, K and E of arguments that fit together; raises what csr raises."""
    x.expect("f16", "bf16")
    values.expect("f32", "f16", "bf16", beside=x)
    columns.expect("u16", "i32", beside=x)
    pointers.expect("i32", beside=x)
    if not x.shape:
        raise ShapeError("x", "a scalar", "[..., K]")
    if len(values.shape) != 1 or columns.shape != values.shape:
        raise ShapeError("columns", columns.shape, f"[E], as values: {values.shape}")
    if len(pointers.shape) != 1 or not pointers.shape[0]:
        raise ShapeError("pointers", pointers.shape, "[N + 1]", "the first pointer is 0")
    m, n, k, entries = math.prod(x.shape[:-1]), pointers.shape[0] - 1, x.shape[-1], values.shape[0]
    if base is not None:
        base.expect(x.dtype, beside=x)
        if base.shape != (*x.shape[:-1], n):
            raise ShapeError("base", base.shape, f"{(*x.shape[:-1], n)}")
    if max(m, n, k, entries) >= 2**31 or math.ceil(m / ROWS) > TALLEST:
        raise RangeError("x and values", f"M, N, K, E = {m}, {n}, {k}, {entries}", "below 2^31, and M to 524,280")
    return m, n, k, entries
