"""Codes of vectors found anew, one column after the other with all others as they are (as QuantEase does, Behdin et
al., 2023, lemma 2, whose step is the same for a column of vectors along the outputs)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.solvers.base import Floats
from subbyte.tensors import Coded, VectorTensor

__all__ = ["revise"]


def revise(tensor: VectorTensor, weight: Floats, moments: Floats, passes: int, block: int = 128) -> VectorTensor:
    """`tensor` after at most `passes` of coordinate descent over its codes; the codebooks stay, and float outliers.

    weight   [O, I] f32: what the tensor should stand for
    moments  [I, I] f32, symmetric: H of the loss tr((W - Q) H (W - Q)^T), which no step raises but for rounding;
             columns whose diagonal is 0 stay
    block    columns between two updates of the rest of the matrix: speed only
    """
    columns = weight.shape[1]
    order = np.arange(columns) if tensor.order is None else tensor.order
    target = np.ascontiguousarray(weight[:, order])
    hessian = np.ascontiguousarray(moments[np.ix_(order, order)])
    scale = np.ones(columns, np.float32) if tensor.scale is None else tensor.scale[order]
    bias = np.zeros(columns, np.float32) if tensor.bias is None else tensor.bias[order]
    apart, _ = tensor.element.columns(columns)
    main = _Columns(tensor.main, columns - apart)
    first = _Columns(tensor.outliers, apart) if isinstance(tensor.outliers, Coded) else None
    error = target - (tensor.placed() * scale + bias)

    importance = hessian.diagonal()
    places = np.argsort(-importance, kind="stable")
    places = places[(importance[places] > 0) & ((places >= apart) | (first is not None))]
    for _ in range(passes):
        before = error.copy()
        slope = error @ hessian
        for start in range(0, len(places), block):
            run = places[start : start + block]
            own, near, left = hessian[np.ix_(run, run)], slope[:, run], error[:, run]
            for k, place in enumerate(run):
                ideal = target[:, place] - left[:, k] + near[:, k] / own[k, k]
                coded, column = (main, place - apart) if first is None or place >= apart else (first, place)
                values = coded.nearest(column, (ideal - bias[place]) / scale[place])
                now = target[:, place] - (values * scale[place] + bias[place])
                near += np.outer(now - left[:, k], own[k])
                left[:, k] = now
            slope += (left - error[:, run]) @ hessian[run]
            error[:, run] = left
        if np.array_equal(error, before):
            break
    return replace(tensor, main=main.coded(), outliers=tensor.outliers if first is None else first.coded())


class _Columns:
    """The codes of some columns while they change."""

    def __init__(self, coded: Coded, columns: int) -> None:
        self._was = coded
        self._codes = coded.codes(columns).view(np.uint32)
        self._size = max(columns // len(coded.codebook), 1)
        self._low = (coded.codebook.shape[1] - 1).bit_length()

    def nearest(self, column: int, ideal: Floats) -> Floats:
        """Gives a column the codes that come nearest to `ideal` [O], where they come nearer than its own; the values of
        its codes. Of two stages each is chosen beside the other one, the first before the second."""
        group = column // self._size
        book = self._was.codebook[group]
        vectors = np.pad(ideal, (0, -len(ideal) % book.shape[1])).reshape(-1, book.shape[1])
        own, width = self._codes[:, column], np.uint32(self._low)
        low, high = own & np.uint32((1 << self._low) - 1), own >> width
        values = book[low]
        if self._was.residual is None:
            chosen, found = _search(vectors, book)
        else:
            second = self._was.residual[group]
            values = values + second[high]
            first, words = _search(vectors - second[high], book)
            more, beside = _search(vectors - words, second)
            chosen, found = first | more << width, words + beside
        nearer = np.square(vectors - found).sum(axis=1) < np.square(vectors - values).sum(axis=1)
        self._codes[nearer, column] = chosen[nearer]
        kept: Floats = np.where(nearer[:, None], found, values).reshape(-1)[: len(ideal)]
        return kept

    def coded(self) -> Coded:
        """The columns with their codes as they are now."""
        return Coded.of(self._codes.view(np.int32), self._was.codebook, self._was.residual)


def _search(vectors: Floats, book: Floats) -> tuple[NDArray[np.uint32], Floats]:
    """The numbers of the codewords nearest to some vectors [N, v], and these codewords."""
    index, _ = kernels.nearest_codeword(np.ascontiguousarray(vectors), book)
    found: NDArray[np.uint32] = index.view(np.uint32)
    return found, book[index]
