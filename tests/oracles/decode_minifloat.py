"""The formats by their definition: sign, exponent, mantissa, and which codes are special."""

from __future__ import annotations

import math

import numpy as np
from tests.oracles.case import Case

#: Bits of the exponent and the mantissa, the bias, and what is special: infinity and NaN, one NaN, or nothing; "none":
#: nothing, nor zero and subnormals.
FORMATS = {
    "e4m3fn": (4, 3, 7, "nan"),
    "e5m2": (5, 2, 15, "inf"),
    "e3m2": (3, 2, 3, ""),
    "e2m3": (2, 3, 1, ""),
    "e2m1": (2, 1, 1, ""),
    "e8m0": (8, 0, 127, "nan"),
    "bf16": (8, 7, 127, "inf"),
    "f16": (5, 10, 15, "inf"),
    "abfloat_e2m1": (2, 1, -1, "none"),
    "abfloat_e2m5": (2, 5, -5, "none"),
    "abfloat_e4m3": (4, 3, -3, "none"),
}


def code_dtype(format: str) -> type[np.unsignedinteger]:
    """What holds a code of this format."""
    return np.uint16 if format in ("bf16", "f16") else np.uint8


def magnitude(code: int, format: str) -> float:
    """The value of a code without sign."""
    exponent_bits, mantissa_bits, bias, special = FORMATS[format]
    exponent, mantissa = code >> mantissa_bits, code & (1 << mantissa_bits) - 1
    if exponent == (1 << exponent_bits) - 1 and special in ("inf", "nan"):
        if special == "inf":
            return math.nan if mantissa else math.inf
        if mantissa == (1 << mantissa_bits) - 1:
            return math.nan
    if exponent == 0 and format != "e8m0" and special != "none":
        return math.ldexp(mantissa, 1 - bias - mantissa_bits)
    return math.ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits)


def decode_minifloat(codes: np.ndarray, format: str) -> np.ndarray:
    """Code by code; every value is an f32."""
    sign = 1 << sum(FORMATS[format][:2])
    values = np.array([magnitude(int(code) & sign - 1, format) for code in codes.ravel()], np.float32)
    values = np.where(np.isnan(values), np.uint32(0x7FC00000).view(np.float32), values)
    negative = (codes.ravel().astype(np.uint32) & sign != 0) * np.uint32(0x80000000)
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
        bits = min(1 + sum(FORMATS[format][:2]), 8 * dtype().itemsize)
        codes = random.integers(0, 1 << bits, shape, dtype)
        moved = codes.size * (4 + codes.itemsize)
        found.append(
            Case(f"{format}-{shape[0]}x{shape[1]}", (codes,), {"format": format}, decode_minifloat, bytes=moved)
        )
    return found
