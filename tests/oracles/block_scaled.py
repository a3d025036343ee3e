"""Each row of words as one long Python integer, its codes cut out of it; blocks by their oracle, the product in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.dequantize_block import BLOCKS, ELEMENTS, dequantize_block


def decoded(
    words: np.ndarray, scale: np.ndarray, cols: int, element: str, block: int, scale_dtype: str, tensor_scale: float
) -> np.ndarray:
    """[N, K] f64."""
    bits, codes = ELEMENTS[element], np.zeros((len(words), cols), np.uint8)
    for n, row in enumerate(words):
        stream = sum((int(word) & 0xFFFFFFFF) << (32 * i) for i, word in enumerate(row))
        codes[n] = [stream >> (k * bits) & (2**bits - 1) for k in range(cols)]
    return dequantize_block(codes, scale, element, block, scale_dtype, tensor_scale).astype(np.float64)


def block_scaled(
    x: np.ndarray,
    words: np.ndarray,
    scale: np.ndarray,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
) -> np.ndarray:
    """x W^T, rounded once."""
    weight = decoded(words, scale, x.shape[-1], element, block, scale_dtype, tensor_scale)
    with np.errstate(invalid="ignore"):
        return (x.astype(np.float64) @ weight.T).astype(x.dtype)


def case(
    rows: int,
    cols: int,
    depth: int,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
    dtype: str = "f4",
    check: bool = True,
) -> Case:
    """Random finite codes, scales around 1/16."""
    random, bits = np.random.default_rng([rows, cols, depth]), ELEMENTS[element]
    codes = random.integers(0, 1 << bits, (cols, depth)).astype(np.uint64)
    if element in ("e4m3fn", "e5m2"):
        codes = np.where(codes % 128 >= 124, codes - 8, codes)  # neither infinity nor NaN
    one = 123 if scale_dtype == "e8m0" else 24
    scale = random.integers(one - 3, one + 4, (cols, depth // block)).astype(np.uint8)
    streams = [sum(int(code) << (bits * k) for k, code in enumerate(row)) for row in codes]
    size = 4 * -(-depth * bits // 32)
    data = b"".join(stream.to_bytes(size, "little") for stream in streams)
    words = np.frombuffer(data, "<i4").reshape(cols, size // 4).copy()
    x = random.standard_normal((rows, depth)).astype(dtype)
    options = {"element": element, "block": block, "scale_dtype": scale_dtype, "tensor_scale": tensor_scale}
    bound = 0.0
    if check:
        weight = np.abs(decoded(words, scale, depth, *options.values()))  # type: ignore[arg-type]
        largest = float((np.abs(x.astype(np.float64)) @ weight.T).max(initial=0))
        bound = ((depth + 3) * 2.0**-24 + np.finfo(x.dtype).eps / 2 * (x.dtype != np.float32)) * largest
    name = f"{rows}x{cols}x{depth}-{element}-{block}-{scale_dtype}-{tensor_scale:.2f}-{dtype}"
    moved = words.nbytes + scale.nbytes + x.nbytes + x.itemsize * rows * cols
    return Case(name, (x, words, scale), options, block_scaled, bound, moved, 2 * rows * cols * depth)


def cases() -> list[Case]:
    """Every element in every published block; few rows and many, around parts of a row that are decoded at once."""
    found = []
    for element in ELEMENTS:
        for block, scale_dtype in BLOCKS:
            shapes = [(1, 5, 96), (1, 3, 192), (3, 2, 544), (12, 3, 64), (50, 3, 64)]
            found += [case(*shape, element, block, scale_dtype, 1.0 if block == 32 else 0.3) for shape in shapes]
    found += [case(rows, 65, 32, "e2m1", tensor_scale=1 / 3) for rows in (0, 2, 17)]
    found += [case(rows, 3, 48, "e3m2", 16) for rows in (1, 9)]
    return found + [case(rows, 9, 128, "e2m1", dtype="f2") for rows in (1, 12)]


def large(rows: int, cols: int, depth: int, element: str, block: int, scale_dtype: str) -> Case:
    """For the bench: words and scales as they come."""
    random = np.random.default_rng(rows)
    words = random.integers(-(2**31), 2**31, (cols, depth * ELEMENTS[element] // 32)).astype(np.int32)
    if element == "e4m3fn":
        words &= 0x77777777  # no NaN
    scale = random.integers(40, 60, (cols, depth // block)).astype(np.uint8)
    x = random.standard_normal((rows, depth)).astype(np.float32)
    options = {"element": element, "block": block, "scale_dtype": scale_dtype}
    name, moved = f"{rows}x{cols}x{depth}-{element}-{block}-{scale_dtype}", words.nbytes + scale.nbytes + x.nbytes
    return Case(name, (x, words, scale), options, block_scaled, 0.0, moved, 2 * rows * cols * depth)
