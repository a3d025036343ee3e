"""Group by group and weight by weight in f64, from the blog's two sub-problems; only the scale is taken in f32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tests.oracles.case import Case

#: Weights nearer than this many steps to another code are kept out of cases: f32 may take the other side of the tie.
MARGIN = 2.0**-12


def shrink(x: float, p: float, beta: float) -> float:
    """The generalized soft threshold; 0 at 0, where the power is infinite."""
    return math.copysign(max(abs(x) - abs(x) ** (p - 1) / beta, 0.0), x) if x else 0.0


def first(values: np.ndarray, bits: int, round_zero: bool, kept: Any = np.float32) -> tuple[float, float]:
    """Scale and first zero point of a group, from its range."""
    lo, hi = np.float32(values.min()), np.float32(values.max())
    wide = np.float32(hi - lo)
    step = np.float32(1) if wide <= np.float32(1e-4) else max(wide / np.float32(2**bits - 1), np.float32(5e-5))
    scale = np.float32(kept(max(step, abs(lo) / np.float32(32768))))
    zero = -float(lo) / float(scale)
    return float(scale), float(np.round(zero)) if round_zero else zero


class Tie(Exception):
    """A code that rounding errors could decide."""


def code(value: float, scale: float, zero: float, top: int) -> int:
    steps = value / scale + zero
    if -1 < steps < top + 1 and abs(steps - math.floor(steps) - 0.5) < MARGIN:
        raise Tie
    return min(max(round(steps), 0), top)


def half_quadratic(
    weight: np.ndarray,
    bits: int,
    group: int = -1,
    p: float = 0.7,
    beta: float = 10.0,
    kappa: float = 1.01,
    steps: int = 20,
    stop: bool = True,
    best: bool = False,
    round_zero: bool = False,
    scale_dtype: str = "f32",
) -> tuple[np.ndarray, ...]:
    """Codes, scale, zero point and the errors of the passes; Tie where f32 could choose another code."""
    kept = {"f32": np.float32, "f16": np.float16}[scale_dtype]
    top, size = 2**bits - 1, weight.shape[1] if group == -1 else group
    groups = weight.reshape(-1, size)
    grids = [first(values, bits, round_zero, kept) for values in groups]
    zeros, history, errors = [zero for _, zero in grids], [], np.full(steps, np.nan)
    for k in range(steps):
        history.append(zeros)
        total, zeros = 0.0, []
        for values, (scale, _), zero in zip(groups, grids, history[-1], strict=True):
            moved = 0.0
            for value in map(float, values):
                q = code(value, scale, zero, top)
                error = value - (q - zero) * scale
                total += abs(error)
                moved += q - (value - shrink(error, p, beta * kappa**k)) / scale
            zeros.append(moved / size)
        errors[k] = total / weight.size
        if stop and k and errors[k] >= errors[:k].min():
            break
    if best and steps:
        zeros = history[int(np.nanargmin(errors))]
    zeros = [float(kept(zero)) for zero in zeros]
    codes = [
        [code(float(v), s, z, top) for v in values] for values, (s, _), z in zip(groups, grids, zeros, strict=True)
    ]
    shape = len(weight), weight.shape[1] // size
    return (
        np.array(codes, np.uint8).reshape(weight.shape),
        np.array([scale for scale, _ in grids], np.float32).reshape(shape),
        np.array(zeros, np.float32).reshape(shape),
        errors.astype(np.float32),
    )


def case(rows: int, group: int, count: int, bits: int, size: float, **options: Any) -> Case:
    """The first weight in a row of seeds that stays clear of ties; weights of `size` about a common offset."""
    for seed in range(1000):
        random = np.random.default_rng(seed)
        weight = (size * (random.standard_normal((rows, group * count)) + 0.3)).astype(np.float32)
        options = {"bits": bits, "group": group if count > 1 else -1, **options}
        try:
            half_quadratic(weight, **options)
        except Tie:
            continue
        given = "".join(f"-{name}={value}" for name, value in options.items() if name not in ("bits", "group"))
        return Case(f"{rows}x{count}x{group}-b{bits}-{size:g}{given}", (weight,), options, half_quadratic)
    raise AssertionError("no weight clear of ties")


def cases() -> list[Case]:
    """All bits; groups around the vector and the block of 256; sizes where nothing is shrunk and where much is."""
    found = [case(2, 8, 2, bits, size) for bits in range(1, 9) for size in (0.02, 2.0)]
    found += [case(rows, group, count, 3, 1.0) for rows, group, count in [(1, 1, 1), (3, 5, 2), (2, 15, 1), (1, 33, 2)]]
    found += [case(1, 261, 1, 2, 1.0, steps=3), case(1, 8, 3, 4, 1.0, steps=0), case(1, 8, 3, 4, 1.0, steps=1)]
    for options in (
        {"p": 1.0},
        {"p": 0.5, "beta": 1.0, "kappa": 1.5},
        {"stop": False, "steps": 7},
        {"best": True},
        {"round_zero": True},
        {"scale_dtype": "f16"},
    ):
        found.append(case(2, 16, 2, 4, 1.0, **options))
    return found


def large(rows: int, cols: int, bits: int, group: int) -> Case:
    """For the bench: weights of the usual size, twelve operations a weight and pass."""
    weight = (np.random.default_rng(5).standard_normal((rows, cols)) * 0.02).astype(np.float32)
    options = {"bits": bits, "group": group, "round_zero": bits == 4}
    name = f"{rows}x{cols}-b{bits}-g{group}"
    return Case(name, (weight,), options, half_quadratic, bytes=5 * weight.size, flops=20 * 12 * weight.size)
