"""The E8P codebook from its published definition: 256 magnitude vectors, seven free signs, a shift by a quarter; and
what may follow it."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from tests.oracles.case import Case

#: Where the three 1/2 are in the vectors of norm 12.
TWELVE = (
    "123 023 013 012 367 357 347 356 346 345 267 257 247 256 246 245 167 157 147 156 146 "
    "045 067 057 047 056 046 014 237"
)


@cache
def table() -> np.ndarray:
    """[65536, 8] f64: the value of each code."""
    vectors = [v for v in product((0.5, 1.5, 2.5), repeat=8) if sum(c * c for c in v) <= 10]
    vectors += [tuple(0.5 if str(j) in places else 1.5 for j in range(8)) for places in TWELVE.split()]
    assert len(vectors) == 256
    values = np.zeros((65536, 8))
    for code in range(65536):
        a, signs = divmod(code, 256)
        parity = signs.bit_count() % 2
        signs ^= parity
        value = list(vectors[a])
        if sum(vectors[a]) % 2 == 1:
            value[7] = -value[7]
        for bit, j in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
            if signs >> bit & 1:
                value[j] = -value[j]
        values[code] = [v - 0.25 if parity else v + 0.25 for v in value]
    return values


@cache
def shortest() -> np.ndarray:
    """[256, 8] f64: the second stage at 3 bits, in the order of the codes."""
    # halves of a vector, joined below
    whole = [v for v in product(range(-4, 4), repeat=4) if sum(c * c for c in v) <= 2]
    vectors = sorted(a + b for a in whole for b in whole if sum(c * c for c in a + b) <= 2 and sum(a + b) % 2 == 0)
    vectors += [v for v in product((-0.5, 0.5), repeat=8) if sum(v) % 2 == 0]
    vectors += [tuple(2.0 * (i == j) for j in range(8)) for i in range(8)]
    vectors += [tuple(-2.0 * (i == j) for j in range(8)) for i in range(7)]
    assert len(vectors) == 256
    return np.array(vectors, np.float64)


def values(codes: np.ndarray, bits: int) -> np.ndarray:
    """[R, 8 C] f64: a second stage is rounded to f32 where the kernel rounds, after the quotient and after the sum."""
    number = codes.astype(np.int64) & 0xFFFFFFFF
    found = table()[number & 0xFFFF]
    if bits > 2:
        second, scale = (shortest(), 2.04) if bits == 3 else (table(), 3.45)
        quotient = (second[number >> 16].astype(np.float32) / np.float32(scale)).astype(np.float32)
        found = (found.astype(np.float32) + quotient).astype(np.float64)
    return found.reshape(len(codes), 8 * codes.shape[1])


def e8p_decode(codes: np.ndarray, bits: int = 2) -> np.ndarray:
    """The values of codes."""
    return values(codes, bits).astype(np.float32)


def residual(rows: int, cols: int, bits: int) -> Case:
    """Any codes of two stages."""
    codes = np.random.default_rng(66).integers(0, 1 << 8 * bits, (rows, cols)).astype(np.uint32).view(np.int32)
    return Case(f"{rows}x{cols}-b{bits}", (codes,), {"bits": bits}, e8p_decode, bytes=36 * codes.size)


def case(rows: int, cols: int, seed: int = 64) -> Case:
    """Any codes."""
    codes = np.random.default_rng(seed).integers(0, 65536, (rows, cols)).astype(np.uint16)
    return Case(f"{rows}x{cols}", (codes,), {}, e8p_decode, bytes=34 * codes.size)


def cases() -> list[Case]:
    """Every code, and sizes around the vectors."""
    every = Case("every", (np.arange(65536, dtype=np.uint16).reshape(256, 256),), {}, e8p_decode)
    return [
        every,
        *(case(*shape) for shape in ((0, 3), (3, 0), (1, 1), (1, 7), (5, 33), (9, 1025))),
        *(residual(7, 500, bits) for bits in (3, 4)),
    ]


def large(rows: int, cols: int) -> Case:
    """For the bench."""
    return case(rows, cols)
