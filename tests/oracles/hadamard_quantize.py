"""The matrix in f64, then row by row. The cases are whole numbers, so that sums of f32 are exact in any order."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.hadamard import hadamard
from tests.oracles.quantize_tokens import FORMATS, quantize_tokens


def hadamard_quantize(
    x: np.ndarray,
    signs: np.ndarray | None = None,
    scale: float | None = None,
    transpose: bool = False,
    eps: float = 1e-5,
    format: str = "int8",
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of scale * H (signs * x), quantized by their own scales."""
    wide = x.astype(np.float32) * (1 if signs is None else signs)
    with np.errstate(invalid="ignore"):
        return quantize_tokens(hadamard(wide, scale, transpose), eps, format)


def cases() -> list[Case]:
    """Powers of two, outer matrices, several rows of a block and one, 16 bits; a row that is not finite."""
    found = []
    shapes = ((0, 8), (1, 1), (9, 4), (19, 256), (3, 512), (2, 2048), (7, 12), (3, 172), (13, 344), (2, 2752))
    for i, (rows, n) in enumerate(shapes):
        rng = np.random.default_rng([rows, n])
        x = rng.integers(-64, 65, (rows, n)).astype(np.float16 if i % 3 == 2 else np.float32)
        if rows > 2:
            x[1] = 0
            x[2, n // 2] = np.nan
        for format in FORMATS:
            signs = rng.choice(np.float32([-1, 1]), n) if format == "int8" else None
            options = {"scale": 0.25, "transpose": i % 2 == 1, "format": format}
            found.append(Case(f"{rows}x{n}-{format}", (x, signs), options, hadamard_quantize))
    return found


def large(rows: int, n: int) -> Case:
    """For the bench."""
    x = np.random.default_rng(20).standard_normal((rows, n), np.float32)
    return Case(f"{rows}x{n}", (x,), {}, hadamard_quantize, bytes=5 * x.size)
