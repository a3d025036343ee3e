"""cuda/hadamard/*.cu under the names and conventions of subbyte.kernels."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from subbyte import _rust
from subbyte.cuda import driver
from subbyte.cuda.arrays import View, constant, empty, exported, view
from subbyte.cuda.quantize import check as check_tokens
from subbyte.cuda.quantize import results
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError

__all__ = ["hadamard", "hadamard_quantize"]

THREADS, SHORT, EACH = 256, 256, 2048  # threads; longest row without shared memory; numbers that a block likes to have


def hadamard(x: Any, scale: float | None = None, transpose: bool = False, *, stream: object = None) -> Any:
    """The last axis times a Hadamard matrix: scale * H x, for powers of two the bits of the CPU.

    x          [..., n] f32, f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device; n = K * 2 ** t as on the
               CPU, but for Hartley's matrices, as long as a row fits the shared memory of a block: 41,728 numbers on
               sm_80, 58,112 on sm_90, less 2 * K for K > 1
    scale      None: 1 / sqrt(n)
    transpose  multiply by the transpose of H
    stream     where it runs: None is the framework's current stream; else as in `launch`
    returns    [..., n], framework, dtype and device of x

    Off by at most (3 K + t + 2) * 2 ** -23 * scale * sum|x| where K > 1; there infinity becomes NaN. The first call for
    a K copies its matrix, so make one before capturing a graph. Raises DtypeError, ShapeError, StrideError,
    DeviceError, RangeError, DriverError, DependencyError.
    """
    seen = view("x", x)
    rows, n = check(seen)
    plan = Plan.of(n, seen.device)
    y = empty(x, seen.framework, seen.shape)
    if rows:
        arrays = [seen, exported("y", y), plan.signs(transpose, seen.device)]
        entry, grid = f"hadamard_{plan.kind}{seen.dtype}", (math.ceil(rows / plan.each), 1)
        numbers = [rows, plan.each, *plan.numbers(scale)]
        start("hadamard", entry, seen, grid, THREADS, arrays, numbers, shared=plan.shared, stream=stream)
    return y


def hadamard_quantize(
    x: Any,
    signs: Any | None = None,
    scale: float | None = None,
    transpose: bool = False,
    eps: float = 1e-5,
    format: str = "int8",
    *,
    stream: object = None,
) -> tuple[Any, Any]:
    """A randomized Hadamard transform and the dynamic quantization of what it gives, in one kernel.

    x        [T, n] f32, f16 or bf16, n as in `hadamard`, torch, CuPy or JAX, contiguous, on a CUDA device
    signs    [n] f32, factors of the columns, beside x; or None: 1
    scale    as in `hadamard`, as are `transpose` and `stream`
    eps      as in `quantize_tokens`, as are `format` and what is returned

    The bits of both kernels one after the other, of f32. Raises as they do.
    """
    seen, factors = view("x", x), None if signs is None else view("signs", signs)
    rows, n = check_tokens(seen, eps, format)
    check(seen)
    if factors is not None:
        factors.expect("f32", beside=seen)
        if factors.shape != (n,):
            raise ShapeError("signs", factors.shape, f"({n},)")
    plan = Plan.of(n, seen.device)
    codes, scales = results(x, seen, format)
    if rows:
        outer = plan.signs(transpose, seen.device)
        arrays = [seen, factors, exported("codes", codes), exported("scales", scales), outer]
        entry, grid = f"hadamard_quantize_{plan.kind}{format}_{seen.dtype}", (math.ceil(rows / plan.each), 1)
        numbers = [rows, plan.each, *plan.numbers(scale), float(eps)]
        start("hadamard_quantize", entry, seen, grid, THREADS, arrays, numbers, shared=plan.whole, stream=stream)
    return codes, scales


def check(x: View) -> tuple[int, int]:
    """Rows and their length, of which there is a matrix; raises what hadamard raises."""
    x.expect("f32", "f16", "bf16")
    if not x.shape:
        raise ShapeError("x", "a scalar", "[..., n]")
    rows, n = math.prod(x.shape[:-1]), x.shape[-1]
    matrix(n)
    if rows >= 2**31:
        raise RangeError("x", f"{rows} rows", "fewer than 2^31", "pass fewer at a time")
    return rows, n


@dataclass(frozen=True)
class Plan:
    """How a block transforms rows: n = order * 2 ** log; `each` rows at once."""

    order: int
    log: int
    each: int

    @classmethod
    def of(cls, n: int, device: int) -> Plan:
        """For rows of n numbers; RangeError where the device has no room for one."""
        order = len(matrix(n))
        plan = cls(order, (n // order).bit_length() - 1, max(1, EACH // n))
        most = driver.shared_memory(device)
        if plan.whole > most:
            raise RangeError("n", n, f"a row that fits the {most} bytes of shared memory of a block of this device")
        return plan

    @property
    def kind(self) -> str:
        """The part of an entry's name that tells whether there is an outer matrix."""
        return "outer_" if self.order > 1 else ""

    @property
    def shared(self) -> int:
        """Bytes of dynamic shared memory, of which short rows without an outer matrix need none."""
        return 0 if self.order == 1 and 1 << self.log <= SHORT else self.whole

    @property
    def whole(self) -> int:
        """The same where all rows are kept."""
        return 4 * self.each * self.order * ((1 << self.log) + (2 if self.order > 1 else 0))

    def numbers(self, scale: float | None) -> list[int | float]:
        """What the kernels are told last."""
        return [self.order, self.log, 1 / math.sqrt(self.order << self.log) if scale is None else float(scale)]

    def signs(self, transpose: bool, device: int) -> View | None:
        """The outer matrix on the device, None where there is none."""
        return signs(self.order, transpose, device) if self.order > 1 else None


@functools.cache
def matrix(n: int) -> Any:
    """The outer matrix for rows of n numbers, [K, K] f32 of 1 and -1; RangeError where there is none of signs alone."""
    found = np.from_dlpack(_rust.hadamard_matrix(n))
    if len(found) > 1 and len(found) % 2:
        expected = "2^t, or K 2^t with a K of which a Hadamard matrix is known here (multiples of 4)"
        raise RangeError("n", n, expected, "the CPU takes this one, by Hartley's matrix")
    return found


@functools.cache
def signs(order: int, transpose: bool, device: int) -> View:
    """Bits that are set where an entry is -1, each row in whole words, lowest bit first."""
    negative = matrix(order).T < 0 if transpose else matrix(order) < 0
    whole = np.pad(negative, ((0, 0), (0, -order % 32)))
    return constant("signs", np.packbits(whole, axis=1, bitorder="little"), device)
