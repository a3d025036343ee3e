"""The elements of block formats by their definition, one after the other; the scales by the oracle of the casts."""

from __future__ import annotations

from functools import cache

import numpy as np
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import FORMATS, decode_minifloat, magnitude

#: Bits of a code.
ELEMENTS = {"e2m1": 4, "e2m3": 6, "e3m2": 6, "e4m3fn": 8, "e5m2": 8, "int8": 8, "int6": 6, "int4": 4}
#: Block and scale of the published formats.
BLOCKS = ((32, "e8m0"), (16, "e4m3fn"))


@cache
def value(code: int, element: str) -> float:
    """What a code stands for; bits above those of the element are not looked at."""
    bits = ELEMENTS[element]
    code &= (1 << bits) - 1
    negative = code >> bits - 1
    if element.startswith("int"):
        return float(code - (negative << bits))
    return (-1.0 if negative else 1.0) * magnitude(code & (1 << bits - 1) - 1, element)


def dequantize_block(
    codes: np.ndarray,
    scale: np.ndarray,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
) -> np.ndarray:
    """Product by product in f32; any NaN is the quiet one, as casts make them."""
    x = np.zeros(codes.shape, np.float32)
    scales = decode_minifloat(scale, scale_dtype)
    with np.errstate(all="ignore"):
        for at in np.ndindex(codes.shape):
            row, col = at
            x[at] = np.float32(value(int(codes[at]), element)) * scales[row, col // block] * np.float32(tensor_scale)
    return x


def cases() -> list[Case]:
    """Every code beside scales of every kind."""
    found = []
    random = np.random.default_rng(21)
    for element in ELEMENTS:
        for block, scale_dtype in BLOCKS:
            codes = np.tile(np.arange(256, dtype=np.uint8), (3, 1))
            scale = random.integers(0, 256, (3, 256 // block), np.uint8)
            scale[0, :6] = (0, 1, 0x7E, 0x7F, 0xFE, 0xFF)
            for tensor_scale in (1.0, 1 / 3):
                options = {"element": element, "block": block, "scale_dtype": scale_dtype, "tensor_scale": tensor_scale}
                found.append(
                    Case(f"{element}-{scale_dtype}-{tensor_scale:.2f}", (codes, scale), options, dequantize_block)
                )
    for rows, cols in ((0, 32), (2, 0), (1, 32), (5, 96)):
        args = np.full((rows, cols), 5, np.uint8), np.full((rows, cols // 32), 130, np.uint8)
        found.append(Case(f"{rows}x{cols}", args, {"element": "e2m1"}, dequantize_block))
    return found


def large(shape: tuple[int, int]) -> list[Case]:
    """For the bench: random codes and scales around 1."""
    random = np.random.default_rng(22)
    found = []
    for element, block, scale_dtype in FORMATS_OF_BENCH:
        codes = random.integers(0, 1 << ELEMENTS[element], shape, np.uint8, endpoint=False)
        one = 127 if scale_dtype == "e8m0" else 56
        scale = random.integers(one - 8, one + 8, (shape[0], shape[1] // block), np.uint8)
        options = {"element": element, "block": block, "scale_dtype": scale_dtype}
        moved = 5 * codes.size + scale.size
        name = f"{element}-{block}-{scale_dtype}-{shape[0]}x{shape[1]}"
        found.append(Case(name, (codes, scale), options, dequantize_block, bytes=moved))
    return found


FORMATS_OF_BENCH = (
    ("e2m1", 32, "e8m0"),
    ("e2m3", 32, "e8m0"),
    ("e3m2", 32, "e8m0"),
    ("e4m3fn", 32, "e8m0"),
    ("e5m2", 32, "e8m0"),
    ("int8", 32, "e8m0"),
    ("e2m1", 16, "e4m3fn"),
    ("int4", 16, "e4m3fn"),
)
assert {element for element in ELEMENTS if not element.startswith("int")} <= set(FORMATS)
