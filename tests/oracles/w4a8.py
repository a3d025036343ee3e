"""Each weight in Python integers, from the bits of its row; sums in Python integers, then the roundings one by one.

Scales of groups: the sum of each group in Python integers, their sum in f64.
"""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def weights(words: np.ndarray, level: np.ndarray | None, zero: np.ndarray | None, cols: int, group: int) -> list:
    """The whole numbers level * (code - zero), a list a row."""
    rows = []
    for n, row in enumerate(words.tolist()):
        stream = sum((word % 2**32) << (32 * i) for i, word in enumerate(row))
        values = []
        for k in range(cols):
            factor = 1 if level is None else int(level[n, k // group])
            shift = 8 if zero is None else int(zero[n, k // group])
            values.append(factor * ((stream >> (4 * k)) % 16 - shift))
        rows.append(values)
    return rows


def w4a8(
    x: np.ndarray,
    words: np.ndarray,
    x_scale: np.ndarray,
    w_scale: np.ndarray,
    level: np.ndarray | None = None,
    zero: np.ndarray | None = None,
    group: int = -1,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """f32(sum) * x_scale * w_scale + bias, or sum_g(w_scale * sum) * x_scale + bias."""
    cols = x.shape[1]
    wide = cols if group == -1 else group
    weight = weights(words, level, zero, cols, wide)
    out = np.zeros((len(x), len(words)), np.float32)
    if w_scale.ndim == 2:
        for t, n in np.ndindex(out.shape):
            products = [a * b for a, b in zip(x[t].tolist(), weight[n], strict=True)]
            sums = [sum(products[k : k + wide]) for k in range(0, cols, wide)]
            total = sum(float(scale) * each for scale, each in zip(w_scale[n], sums, strict=True))
            out[t, n] = total * float(x_scale[t if len(x_scale) > 1 else 0]) + (0 if bias is None else float(bias[n]))
        return out
    for t, n in np.ndindex(out.shape):
        total = sum(a * b for a, b in zip(x[t].tolist(), weight[n], strict=True))
        value = np.float32(total) * x_scale[t if len(x_scale) > 1 else 0] * w_scale[n if len(w_scale) > 1 else 0]
        out[t, n] = value if bias is None else value + bias[n]
    return out


def case(
    rows: int, cols: int, depth: int, group: int = -1, levels: bool = True, zeros: bool = True, many: bool = True
) -> Case:
    """Progressive quantization of random weights (QServe, level 1 with integer zero points): every weight is a byte."""
    random = np.random.default_rng([rows, cols, depth])
    wide = depth if group == -1 else group
    x = random.integers(-128, 128, (rows, depth)).astype(np.int8)
    first = random.integers(-119, 120, (cols, depth // wide, wide))
    low, high = first.min(2, keepdims=True), first.max(2, keepdims=True)
    level = np.maximum(np.rint((high - low) / 15), 1) if levels else np.ones_like(low)
    zero = np.clip(np.rint(-low / level), 0, 15) if zeros else np.full_like(low, 8)
    codes = np.clip(np.rint(first / level) + zero, 0 if zeros else 1, 15).astype(int).reshape(cols, depth)
    packed = np.zeros((cols, -(-depth // 8)), np.uint32)
    for k in range(depth):
        packed[:, k // 8] |= codes[:, k].astype(np.uint32) << np.uint32(4 * (k % 8))
    parameters = {
        "level": level[..., 0].astype(np.uint8) if levels else None,
        "zero": zero[..., 0].astype(np.uint8) if zeros else None,
    }
    scales = [random.uniform(1e-3, 1e-1, count if many else 1).astype(np.float32) for count in (rows, cols)]
    bias = random.standard_normal(cols).astype(np.float32) if many else None
    moved = x.size + packed.nbytes + 2 * level.size + 4 * rows * cols
    name = f"{rows}x{cols}x{depth}-g{group}{'-levels' * levels}{'-zeros' * zeros}{'' if many else '-one'}"
    args = (x, packed.view(np.int32), *scales)
    return Case(
        name, args, {**parameters, "group": group, "bias": bias}, w4a8, bytes=moved, flops=2 * rows * cols * depth
    )


def scaled(rows: int, cols: int, depth: int, group: int, zeros: bool = True) -> Case:
    """Any codes with a float scale a group, and what f32 sums of as many products may be off."""
    wide = depth if group == -1 else group
    random = np.random.default_rng([rows, cols, depth, wide])
    x = random.integers(-128, 128, (rows, depth)).astype(np.int8)
    words = random.integers(0, 2**32, (cols, -(-depth // 8)), np.uint32).view(np.int32)
    shape = (cols, depth // wide)
    zero = random.integers(0, 16, shape).astype(np.uint8) if zeros else None
    x_scale, w_scale = (random.uniform(1e-3, 1e-1, of).astype(np.float32) for of in (rows, shape))
    bias = random.standard_normal(cols).astype(np.float32)
    bound = depth * 2.0**-23 * (depth * 128 * 15 * 1e-1 * 1e-1 + 4)
    moved = x.nbytes + words.nbytes + w_scale.nbytes + (0 if zero is None else zero.nbytes) + 4 * rows * cols
    options = {"zero": zero, "group": group, "bias": bias}
    name = f"{rows}x{cols}x{depth}-g{group}-scales{'-zeros' * zeros}"
    return Case(name, (x, words, x_scale, w_scale), options, w4a8, bound, moved, 2 * rows * cols * depth)


def cases() -> list[Case]:
    """Around blocks of 64 codes, four of them summed in 16 bits, tiles of 6 rows, panels of 64; groups of any size."""
    shapes = [
        (0, 3, 8, 8),
        (1, 1, 1, 1),
        (2, 3, 7, 7),
        (1, 2, 70, -1),
        (3, 65, 64, 32),
        (5, 4, 128, 64),
        (7, 5, 320, 160),
        (13, 3, 640, 320),
        (6, 2, 333, 111),
    ]
    kinds = ((True, True), (False, True), (False, False))
    whole = [case(*shape, *kind, many) for shape in shapes for kind in kinds for many in (True, False)]
    return whole + [scaled(*shape, zeros) for shape in [*shapes, (7, 3, 96, 32)] for zeros in (True, False)]


def large(rows: int, cols: int, depth: int, group: int) -> Case:
    """For the bench; per channel where the group is -1."""
    return case(rows, cols, depth, group, levels=group != -1, many=True)
