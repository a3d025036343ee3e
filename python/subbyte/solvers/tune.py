"""Layer-wise tuning: the floats of a weight in vectors learn from the layer's inputs, its codes stay; by Adam, as the
paper does, or at once by least squares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subbyte.solvers.adam import Adam
from subbyte.solvers.base import Floats, missed
from subbyte.tensors import Coded, VectorTensor

__all__ = ["fit", "tune"]


def tune(tensor: VectorTensor, weight: Floats, moments: Floats, iterations: int, rate: float) -> VectorTensor:
    """Codebooks, scales and biases after `iterations` steps of Adam at `rate`, as the scale dtype holds them.

    weight   [O, I] f32: what the tensor should stand for
    moments  [I, I] f32: X^T X of all inputs. The loss is the squared error of the outputs of every one of them at once,
             which this matrix tells without another pass over the inputs; so are its gradients

    What does not lower the loss is not taken: then the tensor comes back as it was.
    """
    problem = _Problem(tensor, weight, moments)
    floats = {name: values.copy() for name, values in tensor.floats().items() if name != "outlier_values"}
    adam = {name: Adam(values.shape, rate) for name, values in floats.items()}
    for step in range(1, iterations + 1):
        for name, slope in problem.slopes(floats).items():
            floats[name] -= adam[name].step(slope, step)
    return _better(tensor, floats, weight, moments)


def fit(tensor: VectorTensor, weight: Floats, moments: Floats, iterations: int = 20) -> VectorTensor:
    """`tune` for the codebooks alone, in which the loss is quadratic: `iterations` of conjugate gradients, each for the
    price of a step of Adam, go about as far as there is to go."""
    problem = _Problem(tensor, weight, moments)
    start = {name: values for name, values in tensor.floats().items() if "codebook" in name or name == "residual"}
    others = {name: values for name, values in tensor.floats().items() if name in ("scale", "bias")}
    sizes = [values.size for values in start.values()]

    def named(flat: Floats) -> dict[str, Floats]:
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return {name: part.reshape(start[name].shape) for name, part in zip(start, parts, strict=True)}

    def slope(flat: Floats) -> Floats:
        found = problem.slopes(named(flat) | others)
        return np.concatenate([found[name].ravel() for name in start])

    origin = np.concatenate([values.ravel() for values in start.values()])
    at = slope(origin)
    moved, left = np.zeros_like(origin), -at
    way, size = left, float(left @ left)
    for _ in range(iterations):
        along = slope(origin + way) - at
        curved = float(way @ along)
        if not curved > 0:
            break
        moved, left = moved + np.float32(size / curved) * way, left - np.float32(size / curved) * along
        before, size = size, float(left @ left)
        way = left + np.float32(size / before) * way
    return _better(tensor, named(origin + moved), weight, moments)


def _better(tensor: VectorTensor, floats: dict[str, Floats], weight: Floats, moments: Floats) -> VectorTensor:
    """The tensor with these floats, as its scale dtype holds them, or as it is where that loses no more."""
    tuned = tensor.refitted(floats)
    before, after = (missed(weight, one.dequantize(), moments) for one in (tensor, tuned))
    return tuned if after < before else tensor


@dataclass(frozen=True)
class _Part:
    """Columns in codes: the names of their codebooks, and for each the codeword of every code [ceil(O / v), C]."""

    columns: slice
    stages: dict[str, NDArray[np.intp]]


class _Problem:
    """The loss over the outputs' squares as a function of the floats; columns by places, outliers first."""

    def __init__(self, tensor: VectorTensor, weight: Floats, moments: Floats) -> None:
        columns = weight.shape[1]
        apart, _ = tensor.element.columns(columns)
        self.order = np.arange(columns) if tensor.order is None else tensor.order
        self.weight = np.ascontiguousarray(weight[:, self.order])
        self.moments = np.ascontiguousarray(moments[np.ix_(self.order, self.order)])
        # Adam asks for no unit but that of its epsilon.
        self.size = np.float32(max(missed(weight, np.zeros_like(weight), moments), 1e-30) / 2)
        names = ("codebook", "residual")
        self.parts = [_Part(slice(apart, columns), dict(zip(names, tensor.main.stages(columns - apart), strict=False)))]
        self.placed = np.zeros_like(self.weight)
        if isinstance(tensor.outliers, Coded):
            self.parts.append(_Part(slice(0, apart), {"outlier_codebook": tensor.outliers.stages(apart)[0]}))
        elif tensor.outliers is not None:
            self.placed[:, :apart] = tensor.outliers

    def slopes(self, floats: dict[str, Floats]) -> dict[str, Floats]:
        """The gradients of the loss, by the names of `floats`."""
        rows = len(self.weight)
        for part in self.parts:
            first, *more = (_words(floats[name])[index] for name, index in part.stages.items())
            words = first + more[0] if more else first
            self.placed[:, part.columns] = words.transpose(0, 2, 1).reshape(-1, words.shape[1])[:rows]
        scale = floats["scale"][self.order] if "scale" in floats else np.float32(1)
        bias = floats["bias"][self.order] if "bias" in floats else np.float32(0)
        slope = (self.placed * scale + bias - self.weight) @ (self.moments / self.size)
        found = {}
        if "scale" in floats:
            back = np.argsort(self.order)
            found["scale"] = (slope * self.placed).sum(0)[back]
            found["bias"] = slope.sum(0)[back]
        slope *= scale
        for part in self.parts:
            for name, index in part.stages.items():
                book = _words(floats[name])
                count, dim = book.shape
                padded = np.pad(slope[:, part.columns], ((0, -rows % dim), (0, 0))).reshape(-1, dim, index.shape[1])
                flat = index.ravel()
                sums = [np.bincount(flat, padded[:, i].ravel(), minlength=count) for i in range(dim)]
                found[name] = np.stack(sums, axis=1).astype(np.float32).reshape(floats[name].shape)
        return found


def _words(book: Floats) -> Floats:
    """Codewords [G, K, v] of all groups as one list."""
    return book.reshape(-1, book.shape[2])
