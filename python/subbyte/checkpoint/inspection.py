"""inspect: what a folder holds, tensor by tensor, and how good the codes are; one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from subbyte.checkpoint import formats
from subbyte.checkpoint.source import Source
from subbyte.errors import CheckpointError

__all__ = ["TensorReport", "inspect"]

FLOATS = ("F64", "F32", "BF16", "F16", "F8_E4M3", "F8_E5M2")
SIGMAS = 6.0


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One tensor of a checkpoint, or one quantized layer with all tensors that belong to it.

    name             of the tensor, or of the module where it is quantized
    shape            of the weight that the codes stand for, where it is quantized
    scheme           safetensors' dtype, or the scheme ("int4/g128/bf16", with " x int8/token" for quantized inputs)
    bits_per_weight  of what is stored in the file, side tensors and padding included
    nbytes           stored bytes
    peak             float matrices: max|w| / root mean square. A Gaussian has about 4 to 6, outliers have more
    beyond           float matrices: share of weights with |w| > 6 standard deviations (Gaussian: 2e-9)
    error            quantized layers, with a baseline: |W - W'| / |W| in the Frobenius norm
    """

    name: str
    shape: tuple[int, ...]
    scheme: str
    bits_per_weight: float
    nbytes: int
    quantized: bool = False
    peak: float | None = None
    beyond: float | None = None
    error: float | None = None


def inspect(path: str | Path, baseline: str | Path | None = None) -> list[TensorReport]:
    """A report for every tensor and every quantized layer of a checkpoint, sorted by name.

    path       a model folder or a .safetensors file, quantized or not (`Source.open`)
    baseline   the float model that it was made from: quantized layers then get their relative error. Systems that move
               scales between layers (AWQ, SmoothQuant) change the weights on purpose; their error says little.
    Raises CheckpointError, UnknownNameError (a checkpoint format that we do not read).
    """
    source = Source.open(path)
    other = None if baseline is None else Source.open(baseline)
    return sorted(_reports(source, other), key=lambda report: report.name)


def _reports(source: Source, baseline: Source | None) -> Iterator[TensorReport]:
    form = formats.detect(source.config)
    owned: set[str] = set()
    layers = [(form, name) for name in form.layers(source)] if form is not None else []
    for form, name in layers:
        parts = [f"{name}.{part}" for part in form.parts if f"{name}.{part}" in source]
        owned.update(parts)
        layer = form.read(source, name)
        nbytes = sum(source.nbytes(part) for part in parts)
        scheme = str(layer.weight.scheme) + (f" x {layer.activation}" if layer.activation is not None else "")
        error = None
        if baseline is not None:
            error = _relative_error(baseline, f"{name}.weight", layer.weight.dequantize())
        yield TensorReport(
            name, layer.weight.shape, scheme, _bits(nbytes, layer.weight.shape), nbytes, quantized=True, error=error
        )
    for name in source.names():
        if name in owned:
            continue
        shape, nbytes = source.shape(name), source.nbytes(name)
        peak, beyond = _outliers(source, name)
        yield TensorReport(name, shape, source.dtype(name), _bits(nbytes, shape), nbytes, peak=peak, beyond=beyond)


def _bits(nbytes: int, shape: tuple[int, ...]) -> float:
    count = int(np.prod(shape, dtype=np.int64))
    return 8 * nbytes / count if count else 0.0


def _outliers(source: Source, name: str) -> tuple[float | None, float | None]:
    """Peak over root mean square, and the share beyond six standard deviations, of a float matrix."""
    if source.dtype(name) not in FLOATS or len(source.shape(name)) != 2 or 0 in source.shape(name):
        return None, None
    values = source.floats(name)
    largest = max(float(values.max()), -float(values.min()))
    mean, square = _moments(values)
    rms, deviation = float(np.sqrt(square)), float(np.sqrt(max(square - mean * mean, 0.0)))
    if not rms > 0:
        return None, None  # all zeros, or NaN: no ratio
    bound = np.float32(SIGMAS * deviation)
    return largest / rms, (int((values > bound).sum()) + int((values < -bound).sum())) / values.size


def _moments(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Mean and mean square, summed in f64 row by row so that no f64 copy of the matrix is made."""
    total = square = 0.0
    for row in values:
        total += float(row.sum(dtype=np.float64))
        square += float(np.einsum("i,i->", row, row, dtype=np.float64))
    return total / values.size, square / values.size


def _relative_error(baseline: Source, name: str, weight: npt.NDArray[np.float32]) -> float:
    """The distance of a quantized weight from the float one, relative to the float one."""
    original = baseline.floats(name)
    if original.shape != weight.shape:
        hint = "is this the model that the checkpoint was made from?"
        raise CheckpointError(f"{baseline.path}: {name}", list(original.shape), list(weight.shape), hint)
    norm = float(np.sqrt(_moments(original)[1]))
    weight -= original
    distance = float(np.sqrt(_moments(weight)[1]))
    return distance / norm if norm > 0 else distance
