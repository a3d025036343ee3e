"""Cyclic coordinate descent one entry at a time, in f64, each time from the whole of (w - b) H: no kept gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.oracles.case import Case
from tests.oracles.inverse_factor import correlated

#: Rows nearer than this to another code are kept out of cases: f32 may take the other side of the tie.
MARGIN = 1e-3


def run(
    weight: np.ndarray,
    hessian: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray,
    index: np.ndarray,
    bits: int,
    sweeps: int = 30,
    relax: int = 3,
    block: int = 128,
    start: np.ndarray | None = None,
    only: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes, half the error of each row, the values, and each row's smallest distance to a tie."""
    w, form = weight.astype(np.float64), hessian.astype(np.float64)
    found, loss, margin = np.zeros(w.shape, np.uint8), np.zeros(len(w)), np.full(len(w), 0.5)
    values = np.zeros(w.shape)
    for row, target in enumerate(w):
        steps, zeros = scale[row, index].astype(np.float64), zero[row, index].astype(np.float64)
        now = target.copy() if start is None else start[row].astype(np.float64)
        for sweep in range(sweeps):
            if only not in (None, sweep):
                continue
            relaxed = relax > 0 and sweep % relax == 1 and sweep < sweeps - 4
            for j in range(len(target)):
                best = now[j] + ((target - now) @ form[:, j] / form[j, j] if form[j, j] > 0 else 0.0)
                at = best / steps[j] + zeros[j]
                if -1 < at < 2**bits:
                    margin[row] = min(margin[row], abs(at - np.floor(at) - 0.5))
                found[row, j] = min(max(round(at), 0), 2**bits - 1)
                if relaxed and form[j, j] > 0:
                    now[j] = best
                    continue
                now[j] = steps[j] * (found[row, j] - zeros[j])
        loss[row], values[row] = (target - now) @ form @ (target - now) / 2, now
    return found, loss, values, margin


def coordinate_descent(*args: Any, **kwargs: Any) -> tuple[np.ndarray, ...]:
    """Codes, loss and values in the kernel's dtypes."""
    codes, loss, values, _ = run(*args, **kwargs)
    return codes, loss.astype(np.float32), values.astype(np.float32)


def problem(rows: int, cols: int, count: int, bits: int, seed: int) -> dict[str, np.ndarray]:
    """A random weight with a correlated Hessian, on grids that reach about as far as it."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, cols)).astype(np.float32)
    zero = random.integers((2**bits - 1) // 2, (2**bits - 1) // 2 + 2, (rows, count)).astype(np.uint8)
    return {
        "weight": weight,
        "hessian": correlated(cols, seed).astype(np.float32),
        "scale": (random.uniform(4, 6, (rows, count)) / 2**bits).astype(np.float32),
        "zero": zero,
        "index": (random.permutation(cols) % count).astype(np.int32),
    }


def case(rows: int, cols: int, count: int, bits: int, **options: Any) -> Case:
    """At most `rows` rows that are clear of ties, so that f32 and f64 must choose the same codes.

    The losses then differ by the rounding of w - b (half a step at most, off by 2^-23 of w) and of the kept gradient.
    """
    given = problem(3 * rows, cols, count, bits, rows + cols + bits)
    if options.pop("begun", False):
        options["start"] = np.random.default_rng(1).standard_normal(given["weight"].shape).astype(np.float32)
    keep = np.flatnonzero(run(**given, bits=bits, **options)[3] > MARGIN)[:rows]
    assert keep.size
    given = {name: array[keep] if name in ("weight", "scale", "zero") else array for name, array in given.items()}
    name = f"{rows}x{cols}x{count}-b{bits}" + "".join(f"-{key}" for key in options)
    if "start" in options:
        options["start"] = options["start"][keep]
    loss = run(**given, bits=bits, **options)[1]
    bound = 2.0**-14 * max(1.0, float(loss.max()))
    return Case(name, tuple(given.values()), {"bits": bits, **options}, coordinate_descent, bound)


def cases() -> list[Case]:
    """Widths of codes, groups in any order, tiles and blocks that do not fill, every start."""
    found = [case(5, 12, 3, bits, sweeps=sweeps) for bits in (1, 2, 3, 4, 8) for sweeps in (1, 7)]
    found += [case(3, 1, 1, 3, sweeps=2), case(35, 21, 3, 2, sweeps=6, block=8), case(4, 40, 2, 3, sweeps=5, block=16)]
    found += [case(5, 12, 3, 3, sweeps=8, relax=0), case(5, 12, 3, 3, sweeps=9, relax=2)]
    found += [case(5, 12, 3, 3, sweeps=9, only=k, begun=True) for k in (0, 1, 8)]  # the second is relaxed
    return [*found, case(5, 12, 3, 3, sweeps=3, relax=0, begun=True)]


def large(rows: int, cols: int, bits: int, sweeps: int) -> Case:
    """For the bench: one product of the size of the layer a sweep."""
    given = problem(rows, cols, 1, bits, 3)
    options = {"bits": bits, "sweeps": sweeps}
    name = f"{rows}x{cols}-b{bits}-{sweeps}"
    return Case(name, tuple(given.values()), options, coordinate_descent, flops=2 * sweeps * rows * cols**2)
