"""Each code in Python integers, from the bits of its row; sums in Python integers; then the roundings one by one where
one scale belongs to a sum, or all in f64 where groups and outliers have their own.
"""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case


def numbers(words: np.ndarray) -> list[list[int]]:
    """code - 8, a list a row."""
    return [[(word >> 4 * i & 15) - 8 for word in row for i in range(8)] for row in words.tolist()]


def w4a4(
    x: np.ndarray,
    words: np.ndarray,
    x_scale: np.ndarray,
    w_scale: np.ndarray,
    group: int = -1,
    x_outliers: np.ndarray | None = None,
    w_outliers: np.ndarray | None = None,
    x_outlier_scale: np.ndarray | None = None,
    w_outlier_scale: np.ndarray | None = None,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """sum_g s_g * x_scale_g * w_scale_g + o * x_outlier_scale * w_outlier_scale + bias."""
    left, right, depth = numbers(x), numbers(words), 8 * x.shape[1]
    wide, out = max(depth, 1) if group == -1 else group, np.zeros((len(x), len(words)), np.float32)
    exact = x_outliers is None and depth == wide
    for t, n in np.ndindex(out.shape):
        products = [a * b for a, b in zip(left[t], right[n], strict=True)]
        if exact:
            value = np.float32(sum(products)) * x_scale[t, 0] * w_scale[n, 0]
            out[t, n] = value if bias is None else value + bias[n]
            continue
        total = 0.0
        for g, first in enumerate(range(0, depth, wide)):
            total += sum(products[first : first + wide]) * float(x_scale[t, g]) * float(w_scale[n, g])
        if x_outliers is not None:
            beside = sum(a * b for a, b in zip(x_outliers[t].tolist(), w_outliers[n].tolist(), strict=True))
            total += beside * float(x_outlier_scale[t]) * float(w_outlier_scale[n])
        out[t, n] = total + (0.0 if bias is None else float(bias[n]))
    return out


def case(rows: int, cols: int, depth: int, group: int = -1, outliers: int | None = None, biased: bool = False) -> Case:
    """Any codes, -8 among them; `outliers`: columns of 8 bits, -128 among their codes."""
    random = np.random.default_rng([rows, cols, depth])
    x, words = (random.integers(0, 2**32, (count, depth // 8), np.uint32).view(np.int32) for count in (rows, cols))
    wide = max(depth, 1) if group == -1 else group
    scales = [random.uniform(1e-3, 1e-1, (count, depth // wide)).astype(np.float32) for count in (rows, cols)]
    options = {"group": group}
    if outliers is not None:
        for name, count in (("x", rows), ("w", cols)):
            options[f"{name}_outliers"] = random.integers(-128, 128, (count, outliers)).astype(np.int8)
        for name, count in (("x", rows), ("w", cols)):
            options[f"{name}_outlier_scale"] = random.uniform(1e-3, 1e-2, count).astype(np.float32)
    options["bias"] = random.standard_normal(cols).astype(np.float32) if biased else None
    bound = 0.0
    if outliers is not None or wide != depth:
        largest = depth * 64 * 1e-2 + (outliers or 0) * 2.0**14 * 1e-4 + 4 * biased
        bound = (depth / min(wide, 128) + (outliers or 0) / 64 + 6) * 2.0**-23 * largest
    name = f"{rows}x{cols}x{depth}-g{group}" + ("" if outliers is None else f"-o{outliers}") + "-bias" * biased
    moved = sum(each.nbytes for each in (x, words, *scales)) + (outliers or 0) * (rows + cols) + 4 * rows * cols
    flops = 2 * rows * cols * (depth + (outliers or 0))
    return Case(name, (x, words, *scales), options, w4a4, bound, moved, flops)


def cases() -> list[Case]:
    """Around blocks of 64 codes and tiles of 6 rows; groups that are half a block, whole ones and neither."""
    found = [case(*shape, biased=shape[0] % 2 == 1) for shape in ((1, 1, 8), (7, 5, 72), (6, 66, 128), (13, 3, 640))]
    for group in (8, 32, 64, 128, 192, 384):
        found += [case(7, 5, 384, group, outliers, biased=group == 64) for outliers in (None, 24)]
    found += [case(2, 3, 128, -1, 130), case(5, 3, 768, 256, 1, biased=True)]
    return [*found, case(0, 3, 64, 32), case(3, 0, 64), case(2, 3, 0, biased=True), case(2, 3, 64, 32, 0)]


def large(rows: int, cols: int, depth: int, group: int, outliers: int | None = None) -> Case:
    """For the bench; per channel where the group is -1."""
    return case(rows, cols, depth, group, outliers)
