"""SpQR's column loop in f64, one column after the other over the whole rest of the weight: no blocks, no tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.oracles.case import Case
from tests.oracles.gptq import problem

#: Runs nearer than this to another code, or to the threshold, are kept out of cases: f32 may decide otherwise.
MARGIN = 1e-3


class Margin:
    """The smallest distance to a decision that went the other way."""

    def __init__(self) -> None:
        self.least = 0.5

    def code(self, at: float, top: int) -> int:
        """The nearest of the codes 0 to top."""
        if -0.4 < at < top + 0.4:
            self.least = min(self.least, abs(at - np.floor(at) - 0.5))
        return min(max(round(at), 0), top)

    def half(self, value: float, kind: type) -> float:
        """Rounded to what is stored."""
        found = kind(value)
        unit = float(np.spacing(np.abs(found)))
        if kind is np.float16 and abs(abs(float(found) - value) / unit - 0.5) < 2.0**-7:
            self.least = 0.0
        return float(found)

    def above(self, value: float, threshold: float) -> bool:
        """Whether a value is above the threshold."""
        if threshold < np.inf:
            self.least = min(self.least, abs(value - threshold) / threshold)
        return value > threshold


def line(values: list[float], top: int, whole: bool = False) -> tuple[float, float]:
    """Scale and zero point of the range of some values."""
    lo, hi = (min(values), max(values)) if max(values) > min(values) else (-1.0, 1.0)
    zero = -lo / ((hi - lo) / top)
    return (hi - lo) / top, float(round(zero)) if whole else zero


def second(
    values: np.ndarray, bits: int, half: type, margin: Margin
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Values of a run, their codes, and the grid of the second level."""
    top = 2**bits - 1
    scale = margin.half((values.max() - values.min()) / top, half)
    if scale == 0:
        value = float(half(values.min()))
        grid = (abs(value), -np.sign(value)) if value else (1.0, 0.0)
    else:
        grid = (scale, margin.half(-values.min() / scale, half))
    codes = np.array([margin.code(value / grid[0] + grid[1], top) for value in values])
    return grid[0] * (codes - grid[1]), codes, grid


def run_one(
    w: np.ndarray, u: np.ndarray, bits: int, group: int, threshold: float, simplified: bool, scale_bits: int,
    zero_bits: int, round_zero: bool, half: type, given: np.ndarray | None,
) -> dict[str, Any]:  # fmt: skip
    """One run of rows; `w` [run, C] f64 is worked on in place."""
    rows, cols = w.shape
    margin, top, count = Margin(), 2**bits - 1, cols // group
    codes, mask, loss = np.zeros(w.shape), np.zeros(w.shape), np.zeros(rows)
    values = {name: np.zeros((rows, count)) for name in ("scale", "zero")}
    levels = {name: np.zeros((rows, count)) for name in values}
    grids = {name: np.zeros((1, count, 2)) for name in values}

    def squared(row: list[float], pivots: list[float]) -> float:
        s, z = line(row, top, round_zero)
        found = [s * (min(max(round(x / s + z), 0), top) - z) for x in row]
        return sum(((x - y) / p) ** 2 for x, y, p in zip(row, found, pivots, strict=True))

    for j in range(cols):
        g = j // group
        if j % group == 0:
            pivots = [u[c, c] for c in range(j, j + group)]
            for r in range(rows):
                row = list(w[r, j : j + group])
                out = [False] * group
                if given is not None:
                    out = [bool(x) for x in given[r, j : j + group]]
                elif threshold < np.inf and not simplified and group > 1:
                    whole = squared(row, pivots)
                    for c in range(group):
                        gain = whole - squared(row[:c] + row[c + 1 :], pivots[:c] + pivots[c + 1 :])
                        out[c] = margin.above(gain, threshold)
                rest = [x for x, o in zip(row, out, strict=True) if not o]
                mean = sum(rest) / len(rest) if rest else 0.0
                row = [mean if o else x for x, o in zip(row, out, strict=True)]
                values["scale"][r, g], values["zero"][r, g] = line(row, top, round_zero)
            for name, width in (("scale", scale_bits), ("zero", zero_bits)):
                if width:
                    found = second(values[name][:, g], width, half, margin)
                    values[name][:, g], levels[name][:, g], grids[name][0, g] = found
                else:
                    values[name][:, g] = values[name][:, g].astype(half)
        for r in range(rows):
            s, z = values["scale"][r, g], values["zero"][r, g]
            code = margin.code(w[r, j] / max(s, 1e-9) + z, top)
            error = (w[r, j] - s * (code - z)) / u[j, j]
            apart = margin.above(error**2, threshold) if given is None else bool(given[r, j])
            codes[r, j] = margin.code(z, top) if apart else code
            mask[r, j] = apart
            if not apart:
                loss[r] += error**2 / 2
                w[r, j + 1 :] -= error * u[j, j + 1 :]
    return {
        "codes": codes, **values, "scale_codes": levels["scale"], "zero_codes": levels["zero"],
        "scale_grid": grids["scale"], "zero_grid": grids["zero"], "mask": mask, "compensated": w, "loss": loss,
        "margin": margin.least,
    }  # fmt: skip


def run(
    weight: np.ndarray,
    factor: np.ndarray | None,
    bits: int,
    group: int,
    threshold: float | None = None,
    simplified: bool = False,
    scale_bits: int = 3,
    zero_bits: int = 3,
    run: int = 16,
    round_zero: bool = False,
    scale_dtype: str = "f16",
    block: int = 128,
    mask: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """The results of each run of rows."""
    half = {"f16": np.float16, "f32": np.float64}[scale_dtype]
    u = np.eye(weight.shape[1]) if factor is None else factor.astype(np.float64)
    limit = np.inf if threshold is None else threshold
    size = weight.shape[1] if group == -1 else group
    return [
        run_one(
            weight[at : at + run].astype(np.float64), u, bits, size, limit, simplified, scale_bits, zero_bits,
            round_zero, half, None if mask is None else mask[at : at + run],
        )
        for at in range(0, len(weight), run)
    ]  # fmt: skip


def bilevel(*args: Any, **kwargs: Any) -> tuple[np.ndarray, ...]:
    """In the kernel's order and dtypes."""
    runs = run(*args, **kwargs)
    whole = {name: np.concatenate([part[name] for part in runs]) for name in runs[0] if name != "margin"}
    bytes_ = ("codes", "scale_codes", "zero_codes", "mask")
    return tuple(array.astype(np.uint8 if name in bytes_ else np.float32) for name, array in whole.items())


def case(name: str, rows: int, cols: int, feedback: bool = True, masked: bool = False, **options: Any) -> Case:
    """Runs of rows that are clear of ties and of the threshold, so that f32 and f64 must decide alike.

    The values then differ by rounding alone: as for gptq, one unit of f32 for each of the C updates of a value, and as
    much again from the divisions; the zero points that take part may be as large as the values of the bound.
    """
    weight, factor = problem(4 * rows, cols, rows + cols)
    given = factor if feedback else None
    size = options.get("run", 16)
    if masked:
        options["mask"] = (np.random.default_rng(2).random(weight.shape) < 0.1).astype(np.uint8)
        options["mask"][0, : options["group"]] = 1
    margins = [part["margin"] for part in run(weight, given, **options)]
    keep = [at for at, margin in enumerate(margins) if margin > MARGIN][: rows // size]
    assert keep, f"{name}: no run is clear of ties"
    chosen = np.concatenate([np.arange(at * size, (at + 1) * size) for at in keep])
    options |= {"mask": options["mask"][chosen]} if masked else {}
    results = bilevel(weight[chosen], given, **options)
    largest = max(float(np.abs(array).max(initial=1)) for array in results if array.dtype == np.float32)
    ratio = float(factor.max() / np.diag(factor).min()) if feedback else 1.0
    bound = 4 * (cols + 2) * 2.0**-24 * largest * ratio
    assert bound < 0.5, "codes must be told apart"
    return Case(name, (weight[chosen], given), options, bilevel, bound)


def cases() -> list[Case]:
    """Every level on and off, groups inside and across blocks, outliers found, given and absent, rows around chunks."""
    g4 = {"bits": 3, "group": 4, "run": 2}
    return [
        case("two-levels", 8, 12, **g4),
        case("outliers", 8, 12, threshold=0.02, **g4),
        case("outliers-simplified", 8, 12, threshold=0.02, simplified=True, **g4),
        case("blocks", 6, 24, threshold=0.05, block=8, **g4),
        case("a-group-across-blocks", 4, 24, bits=4, group=12, run=2, block=5, threshold=0.05),
        case("scales-alone", 6, 12, bits=3, group=4, run=2, zero_bits=0, scale_dtype="f32"),
        case("zeros-alone", 6, 12, bits=2, group=6, run=3, scale_bits=0, scale_dtype="f32"),
        case("one-level", 6, 20, bits=4, group=-1, run=1, scale_bits=0, zero_bits=0, scale_dtype="f32"),
        case("whole-zero-points", 6, 12, round_zero=True, bits=3, group=4, run=2, zero_bits=0, scale_dtype="f32"),
        case("mask", 8, 12, masked=True, **g4),
        case("no-feedback", 8, 12, feedback=False, **g4),
        case("no-feedback-mask", 8, 12, feedback=False, masked=True, **g4),
        case("wide-levels", 8, 8, bits=2, group=8, run=4, scale_bits=6, zero_bits=4),
        case("chunks", 136, 4, threshold=0.2, bits=2, group=2, run=4),
        case("groups-of-one", 4, 3, bits=2, group=1, run=2),
    ]


def large(rows: int, cols: int) -> Case:
    """For the bench: SpQR's four bits."""
    random = np.random.default_rng(33)
    weight = random.standard_normal((rows, cols), np.float32)
    factor = random.standard_normal((cols, cols), np.float32)
    factor = np.triu(0.1 * factor / cols**0.5, 1) + np.eye(cols, dtype=np.float32)
    options = {"bits": 4, "group": 16, "threshold": 0.05}
    return Case(f"{rows}x{cols}", (weight, factor), options, bilevel, flops=rows * cols**2)
