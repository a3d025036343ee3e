"""Row by row: exact sums, each rounding to f32 where the kernel has it."""

from __future__ import annotations

import math

import numpy as np
from tests.oracles.case import Case
from tests.oracles.quantize_tokens import FORMATS, quantize_tokens


def norm_quantize(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    norm: str = "rms",
    norm_eps: float = 1e-5,
    eps: float = 1e-5,
    format: str = "int8",
) -> tuple[np.ndarray, np.ndarray]:
    """The normalized rows, times weight, plus bias, quantized by their own scales."""
    wide, y = x.astype(np.float32), np.zeros(x.shape, np.float32)
    for row, values in enumerate(wide):
        if not np.isfinite(values).all():
            y[row] = np.nan
        elif len(values):
            mean = math.fsum(map(float, values)) / len(values) if norm == "layer" else 0.0
            square = math.fsum((float(value) - mean) ** 2 for value in values) / len(values)
            factor = np.float32(1 / math.sqrt(square + float(np.float32(norm_eps))))
            y[row] = (values - np.float32(mean)) * factor * weight.astype(np.float32)
            if bias is not None:
                y[row] += bias.astype(np.float32)
    return quantize_tokens(y, eps, format)


def case(
    rows: int, cols: int, norm: str, format: str, biased: bool, dtype: type = np.float32, **options: float
) -> Case:
    """Rows of several magnitudes, far from zero on the mean."""
    rng = np.random.default_rng([rows, cols])
    x = (rng.standard_normal((rows, cols)) + 3) * 10.0 ** rng.integers(-3, 3, (rows, 1))
    weight, bias = (rng.uniform(0.5, 1.5, cols).astype(dtype) for _ in range(2))
    given = (x.astype(dtype), weight, bias if biased else None)
    name = f"{rows}x{cols}-{norm}-{format}-{np.dtype(dtype).name}"
    moved = x.size * (np.dtype(dtype).itemsize + 1)
    return Case(name, given, {"norm": norm, "format": format, **options}, norm_quantize, bytes=moved)


def cases() -> list[Case]:
    """Both norms and formats at every size around the vectors; 16 bits; rows of zeros, and such as are not finite."""
    found = []
    for i, (rows, cols) in enumerate(((0, 5), (2, 0), (1, 1), (3, 7), (2, 8), (5, 33), (3, 300), (2, 1031))):
        found += [case(rows, cols, norm, FORMATS[i % 2], i % 3 == 0) for norm in ("rms", "layer")]
    found += [case(3, 70, norm, format, True, np.float16) for norm in ("rms", "layer") for format in FORMATS]
    found.append(case(2, 64, "layer", "int8", False, norm_eps=0.0, eps=4.0))
    wild = np.ones((5, 40), np.float32)
    wild[1, 3], wild[2, 0], wild[3] = np.nan, -np.inf, 0
    weight = np.linspace(-1, 1, 40, dtype=np.float32)
    found += [Case(f"wild-{norm}", (wild, weight, None), {"norm": norm}, norm_quantize) for norm in ("rms", "layer")]
    return found


def large(rows: int, cols: int) -> Case:
    """For the bench."""
    return case(rows, cols, "rms", "int8", False)
