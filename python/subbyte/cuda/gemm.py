"""GEMMs on CUDA arrays: cuda/gemm/*.cu under the names and conventions of subbyte.kernels."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, current_stream, empty, exported, view
from subbyte.cuda.loader import launch, load, stream_handle
from subbyte.errors import RangeError, ShapeError

__all__ = ["wna16"]

TILE, THREADS = 64, 256  # of cuda/gemm/wna16.cu


def wna16(
    x: Any, words: Any, scale: Any, zero: Any | None, bits: int, group: int = -1, *, stream: object = None
) -> Any:
    """16-bit activations times low-bit weights: y[.., n] = sum_k x[.., k] * scale[n, g] * (code[n, k] - zero[n, g]).

    x        [..., K] f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    words    [N, ceil(K * bits / 32)] i32, codes in layout "dense"
    scale    [N, K / group], dtype of x
    zero     [N, K / group] u8, or None: 2 ** (bits - 1)
    bits     1 to 8
    group    columns that share a scale, a divisor of K; -1: all K
    stream   where it runs: None is the framework's current stream; else as in `launch`, and then x must be ready there
    returns  [..., N], framework, dtype and device of x

    f32 inside, one rounding at the end (bound: cuda/gemm/wna16.cu); returns before the result is there, except for JAX,
    whose streams nobody else can wait for. Raises DtypeError, ShapeError, StrideError, DeviceError, RangeError before
    anything is allocated, DriverError or DependencyError where there is no working driver or no cuda-python.
    """
    seen = view("x", x)
    others = view("words", words), view("scale", scale), None if zero is None else view("zero", zero)
    problem = check(seen, *others, bits, group)
    entry = load("wna16", problem.entry, seen.device)
    y = empty(x, seen.framework, (*seen.shape[:-1], problem.n))
    if problem.blocks == 0:
        return y
    pointers = [seen, problem.words, problem.scale, problem.zero, exported("y", y)]
    sizes = (problem.m, problem.n, problem.k, problem.group)
    args = [*(ctypes.c_void_p(each.pointer if each else None) for each in pointers), *map(ctypes.c_uint, sizes)]
    on = stream_handle(current_stream(seen.framework, seen.device) if stream is None else stream)
    launch(entry, (problem.blocks, 1, 1), (THREADS, 1, 1), args, stream=on)
    if seen.framework == "jax":
        with driver.current(seen.device):
            driver.call("cuStreamSynchronize", on)
    return y


@dataclass(frozen=True)
class Problem:
    """Arguments of wna16 that fit together."""

    words: View
    scale: View
    zero: View | None
    m: int
    n: int
    k: int
    group: int
    entry: str

    @property
    def blocks(self) -> int:
        """One for each tile of the result."""
        return math.ceil(self.m / TILE) * math.ceil(self.n / TILE)


def check(x: View, words: View, scale: View, zero: View | None, bits: int, group: int) -> Problem:
    """The arguments of wna16, checked; raises what wna16 raises."""
    if not 1 <= bits <= 8:
        raise RangeError("bits", bits, "1 to 8")
    x.expect("f16", "bf16")
    words.expect("i32", beside=x)
    scale.expect(x.dtype, beside=x)
    if zero is not None:
        zero.expect("u8", beside=x)
    if not x.shape:
        raise ShapeError("x", "a scalar", "[..., K]")
    if len(words.shape) != 2:
        raise ShapeError("words", words.shape, "[N, ceil(K * bits / 32)]")
    k, n, m = x.shape[-1], words.shape[0], math.prod(x.shape[:-1])
    if group == -1:
        group = max(k, 1)
    if group < 1 or k % group:
        raise ShapeError("group", group, f"a divisor of K = {k}, or -1 for all of it")
    parameters = (n, k // group)
    for given, expected in ((words, (n, (k * bits + 31) // 32)), (scale, parameters), (zero, parameters)):
        if given is not None and given.shape != expected:
            raise ShapeError(given.what, given.shape, f"{expected} for K = {k}, {bits} bits, groups of {group}")
    entry = f"wna16_w{bits}_{x.dtype}_{'sym' if zero is None else 'asym'}"
    problem = Problem(words, scale, zero, m, n, k, group, entry)
    if max(m, n, k, problem.blocks) >= 2**31:
        raise RangeError("x and words", f"M, N, K = {m}, {n}, {k}", "each, and the tiles of the result, below 2^31")
    return problem
