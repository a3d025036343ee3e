"""An independent reader of compressed-tensors: Python integers, written from the format's description alone.

A code is bit field number i of an endless little-endian bit string; nothing here knows of words except their size.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def fields(words: np.ndarray, count: int, bits: int, per_word: int = 0) -> list[int]:
    """`count` bit fields of a row of words: a dense stream, or `per_word` fields in each word and the rest unused."""
    if per_word:
        return [int(words[i // per_word]) % 2**32 >> bits * (i % per_word) & (2**bits - 1) for i in range(count)]
    stream = sum((int(word) % 2**32) << (32 * place) for place, word in enumerate(words))
    return [stream >> (bits * i) & (2**bits - 1) for i in range(count)]


def decode(tensors: dict[str, np.ndarray], arguments: dict[str, Any], padded: bool = False) -> np.ndarray:
    """The weight [O, I] f64 of one layer from its tensors (local names, scales as floats) and its weights arguments."""
    bits, scale = arguments["num_bits"], np.asarray(tensors["weight_scale"], np.float64)
    offset, per_word = 2 ** (bits - 1), 32 // bits if padded else 0
    if "weight_packed" in tensors:
        rows, cols = (int(side) for side in tensors["weight_shape"])
        codes = [[u - offset for u in fields(row, cols, bits, per_word)] for row in tensors["weight_packed"]]
    else:
        codes = tensors["weight"].astype(int).tolist()
        rows, cols = tensors["weight"].shape
    scale = np.broadcast_to(scale.reshape(-1, 1) if scale.ndim < 2 else scale, (rows, scale.size // scale.shape[0]))
    zero = np.zeros(scale.shape, int)
    if not arguments["symmetric"]:
        zero = tensors["weight_zero_point"]
        if "weight_packed" in tensors:  # streams down the output dimension, one for each group
            columns = [[u - offset for u in fields(column, rows, bits, per_word)] for column in zero.T]
            zero = np.array(columns).T
        zero = np.broadcast_to(zero.reshape(-1, 1) if zero.ndim < 2 else zero, scale.shape)
    size = cols // scale.shape[1]
    out = np.empty((rows, cols))
    for row in range(rows):
        for col in range(cols):
            out[row, col] = (codes[row][col] - int(zero[row, col // size])) * scale[row, col // size]
    return out
