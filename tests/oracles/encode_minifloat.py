"""Rounding by search: the two neighbours of a number in the list of all values, and the nearer or the even one."""

from __future__ import annotations

from functools import cache

import numpy as np
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import FORMATS, code_dtype, magnitude

#: What `rounding` may be.
ROUNDINGS = ("even", "away", "up", "zero", "stochastic")


@cache
def values(format: str) -> np.ndarray:
    """All finite magnitudes in order, which is that of their codes, and the one that would come next."""
    every = [magnitude(code, format) for code in range(1 << sum(FORMATS[format][:2]))]
    finite = [value for value in every if np.isfinite(value)]
    assert finite == every[: len(finite)]
    step = finite[-1] if format == "e8m0" else finite[-1] - finite[-2]
    return np.array([*finite, finite[-1] + step], np.float64)


def random(seed: int, place: int) -> int:
    """32 bits for an element: SplitMix64's output for the seed, then MurmurHash3's finalizer twice."""
    key = (seed + 0x9E3779B97F4A7C15) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        key = (key ^ key >> shift) * factor % 2**64
    high, low = divmod(key, 2**32)
    number = place % 2**32
    for half in (low, high ^ place >> 32):
        number ^= half
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            number = (number ^ number >> shift) * factor % 2**32
    return number


def upwards(part: np.ndarray, even: np.ndarray, x: np.ndarray, rounding: str, seed: int) -> np.ndarray:
    """Whether the larger of two neighbouring magnitudes is taken, of a number at `part` of the way to it."""
    if rounding == "zero":
        return part >= 1
    if rounding == "stochastic":
        drawn = np.array([random(seed, place) for place in range(len(x))], np.float64)
        return drawn >= 2**32 - np.floor(part * 2**24) * 2**8
    tie = {"even": ~even, "away": True, "up": ~np.signbit(x)}[rounding]
    return np.where(part == 0.5, tie, part > 0.5)


def encode_minifloat(
    x: np.ndarray, format: str, saturate: bool = True, rounding: str = "even", seed: int = 0
) -> np.ndarray:
    """In f64, where differences between an f32 and its neighbours are exact, and quotients by powers of two."""
    shape = x.shape
    table = values(format)
    past = len(table) - 1
    exponent_bits, mantissa_bits, _, special = FORMATS[format]
    infinity = (1 << exponent_bits) - 1 << mantissa_bits
    nan = infinity | 1 << mantissa_bits - 1 if special == "inf" else infinity | (1 << mantissa_bits) - 1
    beyond = {"inf": infinity, "nan": nan, "": past - 1, "none": past - 1}[special]
    with np.errstate(invalid="ignore"):  # signalling NaN
        x = x.ravel().astype(np.float32)
        number = np.abs(x.astype(np.float64))
    least = 1 if special == "none" else 0  # its code 0 is no value
    above = np.clip(np.searchsorted(table, number), least + 1, past)
    part = np.clip((np.fmin(number, table[-1]) - table[above - 1]) / (table[above] - table[above - 1]), 0, 1)
    even = (above % 2 == 1) & (format != "e8m0")  # ties of scales go up
    code = np.where(upwards(part, even, x, rounding, seed), above, above - 1)
    code = np.where(code >= past, past - 1 if saturate else beyond, code)
    code = np.where(np.isnan(number), nan, code)
    negative = np.signbit(x).astype(np.int64) << (exponent_bits + mantissa_bits)
    negative = 0 if format == "e8m0" else negative
    return (code | negative).astype(code_dtype(format)).reshape(shape)


def hard(format: str) -> np.ndarray:
    """Every value, every tie between two and its neighbours in f32, the ends of f32, and NaNs, of both signs."""
    table = values(format)
    ties = ((table[1:] + table[:-1]) / 2).astype(np.float32)
    ends = np.array([0, 1e-45, 1e-40, 1.1754944e-38, 3.4028235e38, np.inf], np.float32)
    nans = np.array([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x7FA00000], np.uint32).view(np.float32)
    with np.errstate(over="ignore"):
        near = [np.nextafter(ties, np.float32(side)) for side in (0, np.inf)]
        x = np.concatenate([table.astype(np.float32), ties, *near, ends, nans])
    return np.concatenate([x, -x])


def edges() -> np.ndarray:
    """Every exponent of f32 with the mantissas around every place where a format could cut it, of both signs."""
    mantissas = {mantissa + step & 0x7FFFFF for k in range(24) for mantissa in (1 << k, 3 << k) for step in (-1, 0, 1)}
    bits = np.arange(256, dtype=np.uint32)[:, None] << 23 | np.array(sorted(mantissas), np.uint32)
    x = bits.view(np.float32)
    return np.concatenate([x, -x])


def widened() -> np.ndarray:
    """Every f16 and every bf16, as f32."""
    codes = np.arange(1 << 16, dtype=np.uint32)
    with np.errstate(invalid="ignore"):
        return np.stack([codes.astype(np.uint16).view(np.float16).astype(np.float32), (codes << 16).view(np.float32)])


def cases() -> list[Case]:
    """The hard numbers of every format, a sample of all bit patterns, and a few of any number."""
    sample = (np.arange(1 << 18, dtype=np.uint32) * np.uint32(16411)).view(np.float32)
    found = []
    for format in FORMATS:
        for rounding in ROUNDINGS[1:]:
            options = {"format": format, "saturate": rounding != "away", "rounding": rounding, "seed": 2**40 + 5}
            found.append(Case(f"{format}-{rounding}-hard", (hard(format)[-2000:],), options, encode_minifloat))
            found.append(Case(f"{format}-{rounding}-edges", (edges()[:, ::7].copy(),), options, encode_minifloat))
        halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
        found.append(Case(f"{format}-from-f16", (halves,), {"format": format}, encode_minifloat))
        for saturate in (True, False):
            options = {"format": format, "saturate": saturate}
            name = f"{format}-{'saturate' if saturate else 'overflow'}"
            found.append(Case(f"{name}-hard", (hard(format),), options, encode_minifloat))
            found.append(Case(f"{name}-sample", (sample.reshape(512, 512),), options, encode_minifloat))
            found.append(Case(f"{name}-edges", (edges(),), options, encode_minifloat))
            found.append(Case(f"{name}-widened", (widened(),), options, encode_minifloat))
        for n in (0, 1, 7, 8, 9, 15, 16, 17, 33, 63, 65):
            few = hard(format)[-n - 4 : -4]
            found.append(Case(f"{format}-{n}", (few,), {"format": format}, encode_minifloat))
    return found


def large(shape: tuple[int, int]) -> list[Case]:
    """For the bench: normally distributed numbers."""
    x = np.random.default_rng(3).standard_normal(shape, np.float32)
    found = []
    for format, rounding in [*((format, "even") for format in FORMATS), ("e4m3fn", "zero"), ("bf16", "stochastic")]:
        moved = x.size * (4 + code_dtype(format)().itemsize)
        options = {"format": format, "saturate": False, "rounding": rounding}
        name = format if rounding == "even" else f"{format}-{rounding}"
        found.append(Case(f"{name}-{shape[0]}x{shape[1]}", (x,), options, encode_minifloat, bytes=moved))
    half, options = x.astype(np.float16), {"format": "e4m3fn", "saturate": False, "rounding": "even"}
    found.append(Case(f"f16-e4m3fn-{shape[0]}x{shape[1]}", (half,), options, encode_minifloat, bytes=3 * x.size))
    return found
