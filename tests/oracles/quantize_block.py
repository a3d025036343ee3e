"""Block by block: exponents by `frexp` and exact fractions, codes by search in the list of all values."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import numpy as np
from tests.oracles.case import Case
from tests.oracles.dequantize_block import BLOCKS, ELEMENTS, FORMATS_OF_BENCH, value
from tests.oracles.encode_minifloat import encode_minifloat

ROUNDINGS = ("even", "away", "zero")
RULES = ("floor", "ceil", "even", "round", "rceil", "thirds")


@cache
def values(element: str) -> tuple[np.ndarray, np.ndarray]:
    """All values that a cast may give and their codes, in order; of the two zeros the positive one."""
    codes = [code for code in range(1 << ELEMENTS[element]) if math.isfinite(value(code, element))]
    lowest = -max(value(code, element) for code in codes)
    found = {value(code, element): code for code in reversed(codes) if value(code, element) >= lowest}
    order = sorted(found)
    return np.array(order), np.array([found[one] for one in order])


def rounded(x: np.float32, element: str, rounding: str = "even") -> int:
    """The nearest, of two the even code or the larger magnitude, or the largest that is none larger than x; beyond the
    largest value that one."""
    table, codes = values(element)
    distance = np.abs(table - np.clip(float(x), 2 * table[0], 2 * table[-1]))
    if rounding == "zero":
        distance[np.abs(table) > abs(float(x))] = np.inf
    best = codes[distance == distance.min()]
    if rounding == "away":
        code = int(max(best, key=lambda code: abs(value(code, element))))
    else:
        code = int(best[0] if len(best) == 1 or best[0] % 2 == 0 else best[1])
    if value(code, element) == 0 and not element.startswith("int") and np.signbit(x):
        code |= 1 << ELEMENTS[element] - 1
    return code


def exponent(x: Fraction) -> int:
    """floor(log2 x)."""
    guess = x.numerator.bit_length() - x.denominator.bit_length()
    return guess if Fraction(2) ** guess <= x else guess - 1


def power(largest: np.float32, element: str, rule: str) -> int:
    """The exponent of a block's scale, before it is held to what E8M0 has."""
    highest = max(values(element)[0])
    top = exponent(Fraction(float(highest)))
    bits = ELEMENTS[element] - 2 if element.startswith("int") else {"e2m1": 1, "e3m2": 2, "e5m2": 2}.get(element, 3)
    # below the normal numbers f32 has no more exponents, and all of them mean 2^-127
    if largest < np.finfo(np.float32).tiny:
        return -127
    whole = Fraction(float(largest))
    quotient = Fraction(float(largest / np.float32(highest)))
    if rule == "floor":
        return exponent(whole) - top
    if rule == "ceil":
        return exponent(whole) + (Fraction(2) ** exponent(whole) != whole) - top
    if rule == "even":
        step = Fraction(2) ** (exponent(whole) - bits)
        return exponent((whole / step + Fraction(1, 2)).__floor__() * step) - top
    if rule == "thirds":
        return exponent(whole)
    below = exponent(quotient)
    if rule == "round":
        return below + (quotient**2 > 2 * Fraction(4) ** below)
    return below + (quotient != Fraction(2) ** below)


def quantize_block(
    x: np.ndarray,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    rule: str = "floor",
    tensor_scale: float = 1.0,
    rounding: str = "even",
) -> tuple[np.ndarray, np.ndarray]:
    """Codes and the bits of the scales."""
    x = x.astype(np.float32)
    rows, cols = x.shape
    codes, scale = np.zeros(x.shape, np.uint8), np.zeros((rows, cols // block), np.uint8)
    for row, number in np.ndindex(scale.shape):
        part = slice(number * block, (number + 1) * block)
        numbers = x[row, part]
        if not np.isfinite(numbers).all():
            scale[row, number] = 0xFF if scale_dtype == "e8m0" else 0x7F
            continue
        largest = np.abs(numbers).max()
        if scale_dtype == "e8m0":
            biased = min(max(power(largest, element, rule) + 127, 0), 254)
            scale[row, number] = biased
            steps = np.ldexp(numbers.astype(np.float64), 127 - biased)
            # the product by three is rounded to f32, and small numbers are too small to matter
            steps = (steps * 3).astype(np.float32) if rule == "thirds" else steps.astype(np.float32)
        else:
            with np.errstate(all="ignore"):
                wanted = largest / np.float32(max(values(element)[0])) / np.float32(tensor_scale)
            scale[row, number] = encode_minifloat(np.array([wanted]), "e4m3fn")[0]
            if scale[row, number] == 0:
                continue
            unit = np.float32(value(int(scale[row, number]), "e4m3fn")) * np.float32(tensor_scale)
            with np.errstate(all="ignore"):
                steps = numbers / unit
        codes[row, part] = [rounded(step, element, rounding) for step in steps]
    return codes, scale


def blocks(block: int) -> np.ndarray:
    """Blocks of every magnitude: normally distributed, of exact ties, with neighbours of powers of two as largest."""
    random = np.random.default_rng(20)
    rows = [random.standard_normal(block) * 2.0**e for e in (0, 1, -3, 40, -130, -146, 125)]
    rows += [random.integers(-30, 31, block) / 8 for _ in range(6)]
    with np.errstate(over="ignore"):
        for top in (1.0, 1.5, 1.75, 6.0, 7.0, 7.5, 28.0, 57344.0, 2.0**-126, 2.0**-127, 2.0**127):
            for side in (0, 1, np.inf):
                one = np.float32(top) if side == 1 else np.nextafter(np.float32(top), np.float32(side))
                part = random.uniform(-1, 1, block) * one
                part[3] = -one
                rows.append(part)
        rows += [np.zeros(block), -np.zeros(block), np.full(block, 3.4028235e38)]
        x = np.stack(rows).astype(np.float32)
    return np.concatenate([x, x[::-1]], axis=1)


def wild(block: int) -> np.ndarray:
    """Blocks that are not finite, between others."""
    x = np.random.default_rng(23).standard_normal((4, 4 * block)).astype(np.float32)
    for row, number in enumerate((np.nan, np.inf, -np.inf)):
        x[row, block * row + 5] = number
    return x


def cases() -> list[Case]:
    """Every element with its usual scales, every rule, tensor scales, and blocks that are not finite."""
    found = []
    for element in ELEMENTS:
        for block, scale_dtype in BLOCKS:
            options = {"element": element, "block": block, "scale_dtype": scale_dtype}
            for name, x in (("blocks", blocks(block)), ("wild", wild(block))):
                found.append(Case(f"{element}-{scale_dtype}-{name}", (x,), options, quantize_block))
            for rounding in ROUNDINGS[1:]:
                case = f"{element}-{scale_dtype}-{rounding}"
                found.append(Case(case, (blocks(block),), {**options, "rounding": rounding}, quantize_block))
        for rule in RULES[1:] if element == "e2m1" else RULES[1:-1]:
            options = {"element": element, "rule": rule}
            found.append(Case(f"{element}-{rule}", (blocks(32),), options, quantize_block))
    for element in ("e2m1", "int4"):
        for tensor_scale in (0.01, 3.0, 1e-30, 1e30):
            options = {"element": element, "block": 16, "scale_dtype": "e4m3fn", "tensor_scale": tensor_scale}
            found.append(Case(f"{element}-tensor-{tensor_scale:g}", (blocks(16),), options, quantize_block))
    with np.errstate(over="ignore"):
        halves = np.concatenate([blocks(32), wild(32)[:, :64]]).astype(np.float16)
    found.append(Case("e2m1-f16", (halves,), {"element": "e2m1"}, quantize_block))
    found.append(Case("e2m1-16-e8m0", (blocks(16),), {"element": "e2m1", "block": 16}, quantize_block))
    for rows, cols in ((0, 32), (2, 0), (1, 32), (3, 160)):
        x = np.random.default_rng(24).standard_normal((rows, cols), np.float32)
        found.append(Case(f"{rows}x{cols}", (x,), {"element": "e4m3fn"}, quantize_block))
    return found


def large(shape: tuple[int, int]) -> list[Case]:
    """For the bench: normally distributed numbers."""
    x = np.random.default_rng(25).standard_normal(shape, np.float32)
    found = []
    for element, block, scale_dtype in FORMATS_OF_BENCH:
        options = {"element": element, "block": block, "scale_dtype": scale_dtype}
        name = f"{element}-{block}-{scale_dtype}-{shape[0]}x{shape[1]}"
        found.append(Case(name, (x,), options, quantize_block, bytes=5 * x.size + x.size // block))
    options, moved = {"element": "e2m1", "block": 32, "scale_dtype": "e8m0"}, 3 * x.size + x.size // 32
    name = f"f16-e2m1-32-e8m0-{shape[0]}x{shape[1]}"
    found.append(Case(name, (x.astype(np.float16),), options, quantize_block, bytes=moved))
    return found
