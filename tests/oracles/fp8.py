"""Codes by the definition of the format, the products and their scales in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import magnitude


def decoded(codes: np.ndarray, scale: np.ndarray, format: str) -> np.ndarray:
    """Codes [R, K] as f64, each times the scale of its row and its block of 128 columns."""
    return scaled(values(format)[codes], scale)


def values(format: str) -> np.ndarray:
    """What each code of a format means."""
    return np.array([(-1) ** (code >> 7) * magnitude(code & 127, format) for code in range(256)])


def scaled(wide: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Values [R, K], each times the scale of its row and its block of 128 columns."""
    wide = wide.copy()
    for row, column in np.ndindex(wide.shape):
        rows, blocks = scale.shape
        at = row if rows == len(wide) else 0 if rows == 1 else row // 128
        wide[row, column] *= scale[at, column // 128 if blocks > 1 else 0]
    return wide


def fp8(
    x: np.ndarray,
    weight: np.ndarray,
    x_scale: np.ndarray,
    w_scale: np.ndarray,
    format: str = "e4m3fn",
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """The product of the decoded matrices, plus the bias, rounded once."""
    with np.errstate(invalid="ignore"):
        total = decoded(x, x_scale, format) @ decoded(weight, w_scale, format).T
    return (total + (0 if bias is None else bias)).astype(np.float32)


def case(
    rows: int,
    cols: int,
    depth: int,
    x_grid: tuple[int, int] = (0, 0),
    w_grid: tuple[int, int] = (0, 0),
    format: str = "e4m3fn",
    biased: bool = False,
    whole: bool = False,
    check: bool = True,
) -> Case:
    """Every code that is a number; `grid`: rows and columns that share a scale, 0 for all of them.

    whole  as for `codes`
    """
    random = np.random.default_rng([rows, cols, depth])
    x, weight = (codes(random, (count, depth), format, whole) for count in (rows, cols))
    scales = []
    for count, (tall, wide) in ((rows, x_grid), (cols, w_grid)):
        shape = -(-count // tall) if tall else 1, max(1, -(-depth // wide)) if wide else 1
        scales.append(random.uniform(1e-4, 1e-2, shape).astype(np.float32))
    bias = random.standard_normal(cols).astype(np.float32) if biased else None
    args = (x, weight, *scales, format, bias)
    limit = 0.0
    if check:
        size = abs(decoded(x, scales[0], format)) @ abs(decoded(weight, scales[1], format)).T
        # K + 3 roundings of f32, twice as wide where a tensor core adds; then that of the bias and of the oracle
        limit = (depth + 5) * 2.0**-23 * float(size.max(initial=0)) + (2.0**-20 if biased else 0.0)
    kind = f"{format}{'-bias' if biased else ''}{'-whole' if whole else ''}"
    name = f"{rows}x{cols}x{depth}-x{x_grid[0]}.{x_grid[1]}-w{w_grid[0]}.{w_grid[1]}-{kind}"
    return Case(name, args, {}, fp8, limit, x.size + weight.size + 4 * rows * cols, 2 * rows * cols * depth)


def codes(random: np.random.Generator, shape: tuple[int, ...], format: str, whole: bool = False) -> np.ndarray:
    """Any codes that are numbers, or `whole` ones from -4 to 4 alone, whose sums 13 bits of fraction hold."""
    last = {"e4m3fn": 126, "e5m2": 123}[format]  # the largest finite magnitude
    among = [code for code in range(last + 1) if not whole or magnitude(code, format) in (0, 1, 2, 3, 4)]
    return (random.choice(among, shape) | random.integers(0, 2, shape) << 7).astype(np.uint8)


def cut_bound(given: Case) -> float:
    """The bound where wgmma sums, with numbers cut behind 13 bits of fraction (cuda/common/wgmma.cuh).

    Of 128 columns the first 32 make 32 cuts and one of their sum, the other three one more each, of at most 2^-13 of
    the largest magnitude, which is at most the sum of all, and by 138 / 135 more at most for the cuts before. The
    exponent of a subnormal is that of the smallest normal number, so it counts as that.
    """
    x, weight, x_scale, w_scale, format, _ = given.args
    smallest = {"e4m3fn": 2.0**-6, "e5m2": 2.0**-14}[format]
    with np.errstate(invalid="ignore"):
        sizes = np.where(values(format) == 0, 0, np.maximum(abs(values(format)), smallest))
    size = scaled(sizes[x], x_scale) @ scaled(sizes[weight], w_scale).T
    return given.bound + 138 * 2.0**-13 * float(size.max(initial=0))


def cases() -> list[Case]:
    """Scales of tensors, tokens, channels and blocks of either side; sizes around the tiles and the blocks."""
    found = []
    for format in ("e4m3fn", "e5m2"):
        for shape in ((1, 1, 1), (3, 5, 17), (2, 3, 128), (17, 129, 144), (65, 3, 260)):
            for x_grid, w_grid in (((0, 0), (0, 0)), ((1, 0), (1, 0)), ((1, 128), (128, 128)), ((128, 128), (1, 128))):
                found.append(case(*shape, x_grid, w_grid, format, biased=shape[0] == 3))
    return [*found, case(0, 3, 5), case(3, 0, 5), case(2, 3, 0, biased=True)]


def large(rows: int, cols: int, depth: int) -> Case:
    """For the bench: tokens by channels."""
    return case(rows, cols, depth, (1, 0), (1, 0), check=False)
