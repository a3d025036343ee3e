"""The rules of docs and papers, group by group, in NumPy's f32 scalars; the search measures its errors in f64."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import decode_minifloat
from tests.oracles.encode_minifloat import encode_minifloat

f32 = np.float32


def fit_affine(x: np.ndarray, bits: int, group: int = -1, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of each group; see `parameters` and `shrunk`."""
    rows, cols = x.shape
    size = cols if group == -1 else group
    count = cols // size if cols else 0
    scale, zero = np.zeros((rows, count), np.float32), np.zeros((rows, count), np.uint8)
    search = {"norm": 2.4, "shrink_grid": 100, "shrink_steps": 0}
    search.update({name: options.pop(name) for name in list(options) if name in search})
    for row in range(rows):
        for g in range(count):
            values = x[row, g * size : (g + 1) * size]
            factor = f32(1)
            if search["shrink_steps"]:
                errors = shrunk(values, bits, options, **search)
                factor = fraction(int(np.argmin(errors)), search["shrink_grid"])
            scale[row, g], zero[row, g] = parameters(factor * values.min(), factor * values.max(), bits, **options)
    return scale, zero


def fraction(i: int, grid: int) -> np.float32:
    """What is left of the range at step i."""
    return f32(1) - f32(i) / f32(grid)


def parameters(
    lo: np.float32,
    hi: np.float32,
    bits: int,
    symmetric: bool = True,
    narrow: bool = False,
    forced_zero: bool = True,
    eps: float = 0.0,
    scale_dtype: str = "f32",
) -> tuple[np.float32, int]:
    """Scale and zero point for a range."""
    top = 2**bits - 1
    if forced_zero:
        lo, hi = min(lo, f32(0)), max(hi, f32(0))
    if symmetric:
        largest = max(abs(lo), abs(hi))
        if largest == 0 and eps == 0:
            largest = f32(1)
        if narrow:
            return rounded(max(largest, f32(eps)) / f32(2 ** (bits - 1) - 1), scale_dtype), 2 ** (bits - 1)
        return rounded(max(f32(2) * largest, f32(eps)) / f32(top), scale_dtype), 2 ** (bits - 1)
    if lo == hi and eps == 0:
        lo, hi = f32(-1), f32(1)
    scale = rounded(max(hi - lo, f32(eps)) / f32(top), scale_dtype)
    return scale, min(max(round(float(-lo / scale)), 0), top)


def rounded(scale: np.float32, dtype: str) -> np.float32:
    """The scale as it will be stored: not 0 (the smallest normal number instead), not infinite (the largest)."""
    if dtype == "f32":
        return max(min(scale, np.finfo(f32).max), np.finfo(f32).tiny) if scale == 0 or np.isinf(scale) else scale
    value = decode_minifloat(encode_minifloat(np.array([scale], f32), dtype), dtype)[0]
    return value if value else f32(2.0**-14 if dtype == "f16" else 2.0**-126)


def shrunk(values: np.ndarray, bits: int, options: dict[str, Any], norm: float, **search: int) -> list[float]:
    """The error of every step of the search."""
    errors = []
    for i in range(search["shrink_steps"]):
        p = fraction(i, search["shrink_grid"])
        scale, zero = parameters(p * values.min(), p * values.max(), bits, **options)
        codes = np.clip(np.rint(values / scale) + zero, 0, 2**bits - 1)
        errors.append(float(np.sum(np.abs(np.float64(scale) * (codes - zero) - values) ** norm)))
    return errors


def numbers(shape: tuple[int, int], seed: int = 5) -> np.ndarray:
    """Normally distributed, with outliers, zeros of both signs and subnormals among them."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape).astype(np.float32)
    for share, value in ((0.05, 0.0), (0.03, -0.0), (0.02, 1e-41)):
        x[random.random(shape) < share] = value
    x[random.random(shape) < 0.02] *= 20
    return x


def grids() -> list[tuple[str, dict[str, Any]]]:
    """The grids that published systems use, and the corners of the rest."""
    return [
        ("symmetric", {}),
        ("narrow", {"narrow": True}),
        ("narrow-eps-bf16", {"narrow": True, "eps": 1e-5, "scale_dtype": "bf16"}),
        ("asymmetric", {"symmetric": False}),
        ("asymmetric-f16", {"symmetric": False, "scale_dtype": "f16"}),
        ("awq", {"symmetric": False, "forced_zero": False, "eps": 1e-5}),
        ("unforced", {"symmetric": False, "forced_zero": False}),
    ]


#: Rows, group and groups, around the widths of vectors.
SHAPES = ((0, 8, 1), (3, 1, 4), (2, 7, 3), (3, 8, 2), (2, 9, 1), (2, 17, 2), (5, 32, 3), (2, 33, 1), (3, 128, 2))


def cases() -> list[Case]:
    """Every grid and width of codes over every shape, without search."""
    found = []
    for rows, group, count in SHAPES:
        x = numbers((rows, group * count))
        for name, grid in grids():
            for bits in range(1, 9):
                if bits > 1 or not grid.get("narrow"):
                    options = {"bits": bits, "group": group if count > 1 else -1, **grid}
                    found.append(Case(f"{name}-{bits}-{rows}x{count}x{group}", (x,), options, fit_affine))
    return found


def large(rows: int, cols: int, group: int, **search: Any) -> Case:
    """For the bench: GPTQ's grid."""
    x = np.random.default_rng(6).standard_normal((rows, cols), np.float32)
    options = {"bits": 4, "group": group, "symmetric": False, **search}
    name = f"{rows}x{cols}-g{group}" + "".join(f"-{key}={value}" for key, value in search.items())
    return Case(name, (x,), options, fit_affine, bytes=4 * x.size)
