"""The formats by their definition: sign, exponent, mantissa, and which codes are special."""

from __future__ import annotations

import math

import numpy as np
from tests.oracles.case import Case

#: Bits of the exponent and the mantissa, the bias, and whether there is infinity.
FORMATS = {"e4m3fn": (4, 3, 7, False), "e5m2": (5, 2, 15, True), "bf16": (8, 7, 127, True), "f16": (5, 10, 15, True)}


def code_dtype(format: str) -> type[np.unsignedinteger]:
    """What holds a code of this format."""
    return np.uint8 if format in ("e4m3fn", "e5m2") else np.uint16


def magnitude(code: int, format: str) -> float:
    """The value of a code without sign."""
    exponent_bits, mantissa_bits, bias, infinity = FORMATS[format]
    exponent, mantissa = code >> mantissa_bits, code & (1 << mantissa_bits) - 1
    if exponent == (1 << exponent_bits) - 1:
        if infinity:
            return math.nan if mantissa else math.inf
        if mantissa == (1 << mantissa_bits) - 1:
            return math.nan
    if exponent == 0:
        return math.ldexp(mantissa, 1 - bias - mantissa_bits)
    return math.ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits)


def decode_minifloat(codes: np.ndarray, format: str) -> np.ndarray:
    """Code by code; every value is an f32."""
    sign = 1 << sum(FORMATS[format][:2])
    values = np.array([magnitude(int(code) & sign - 1, format) for code in codes.ravel()], np.float32)
    values = np.where(np.isnan(values), np.uint32(0x7FC00000).view(np.float32), values)
    negative = (codes.ravel() & sign != 0) * np.uint32(0x80000000)
    return (values.view(np.uint32) | negative.astype(np.uint32)).view(np.float32).reshape(codes.shape)


def cases() -> list[Case]:
    """Every code of every format, and a few of any number."""
    found = []
    for format in FORMATS:
        every = np.arange(1 << (8 * code_dtype(format)().itemsize)).astype(code_dtype(format))
        third = len(every) // 3
        for n in (0, 1, 7, 8, 9, 15, 16, 17, 33, 63, 65, len(every)):
            codes = every[third : third + n] if n < len(every) else every
            found.append(Case(f"{format}-{n}", (codes,), {"format": format}, decode_minifloat))
    return found


def large(shape: tuple[int, int]) -> list[Case]:
    """For the bench: random codes."""
    random = np.random.default_rng(4)
    found = []
    for format in FORMATS:
        dtype = code_dtype(format)
        codes = random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
        moved = codes.size * (4 + codes.itemsize)
        found.append(
            Case(f"{format}-{shape[0]}x{shape[1]}", (codes,), {"format": format}, decode_minifloat, bytes=moved)
        )
    return found
