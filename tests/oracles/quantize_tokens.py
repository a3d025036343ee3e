"""Row by row, with Python's own rounding of the f32 quotient."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from tests.oracles.case import Case
from tests.oracles.fit_affine import numbers

FORMATS = ("int8", "e4m3fn")


def quantize_tokens(x: np.ndarray, eps: float = 1e-5, format: str = "int8") -> tuple[np.ndarray, np.ndarray]:
    """scale = max(max|x|, eps) / largest and x / scale rounded; a row that is not finite gets NaN and zeros."""
    x, whole = x.astype(np.float32), format == "int8"
    codes, scale = np.zeros(x.shape, np.int8 if whole else np.uint8), np.zeros(len(x), np.float32)
    for row, values in enumerate(x):
        if not np.isfinite(values).all():
            scale[row] = np.nan
            continue
        scale[row] = max(np.abs(values).max(initial=0), np.float32(eps)) / np.float32(127 if whole else 448)
        quotients = values / scale[row]
        codes[row] = [round(float(value)) for value in quotients] if whole else e4m3fn(quotients)
    return codes, scale


def e4m3fn(x: np.ndarray) -> np.ndarray:
    """The codes of the nearest values, of magnitudes up to 464, where rounding leads to 448."""
    return x.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)


def cases() -> list[Case]:
    """Rows of every size and magnitude, zeros, exact halves, and rows that are not finite."""
    found = []
    for rows, cols in ((0, 5), (2, 0), (1, 1), (3, 7), (3, 8), (3, 9), (2, 31), (2, 33), (3, 64), (2, 65), (2, 301)):
        for magnitude in (1, 1e-6, 1e30):
            x = numbers((rows, cols), seed=13) * np.float32(magnitude)
            found.append(Case(f"{rows}x{cols}-{magnitude:g}", (x,), {}, quantize_tokens))
    halves = np.arange(-254, 255, dtype=np.float32)[None] / 2
    found.append(Case("halves", (halves,), {}, quantize_tokens))
    found.append(Case("eps", (np.float32([[0, 1e-3, -2e-3]]),), {"eps": 0.5}, quantize_tokens))
    wild = numbers((6, 70), seed=14)
    for row, value in ((1, np.nan), (2, np.inf), (4, -np.inf)):
        wild[row, 5 * row] = value
    wild[3] = 0
    found.append(Case("not-finite", (wild,), {}, quantize_tokens))
    found += [Case(f"{case}-e4m3fn", case.args, {**case.kwargs, "format": "e4m3fn"}, case.oracle) for case in found]
    half = numbers((3, 65), seed=15).astype(np.float16)
    return [*found, *(Case(f"f16-{format}", (half,), {"format": format}, quantize_tokens) for format in FORMATS)]


def large(rows: int, cols: int) -> Case:
    """For the bench."""
    x = np.random.default_rng(15).standard_normal((rows, cols), np.float32)
    return Case(f"{rows}x{cols}", (x,), {}, quantize_tokens, bytes=5 * x.size)
