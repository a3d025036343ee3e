"""Codes of vectors found anew, one column after the other with all others as they are: `kernels.codebook_descent`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

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

    Columns are taken by falling diagonal, where one codebook serves all, else as the tensor has placed them; columns of
    outliers before the others in each pass.
    """
    columns = weight.shape[1]
    order = np.arange(columns) if tensor.order is None else tensor.order
    scale = np.ones(columns, np.float32) if tensor.scale is None else tensor.scale[order]
    bias = np.zeros(columns, np.float32) if tensor.bias is None else tensor.bias[order]
    target = (weight[:, order] - bias) / scale
    hessian = moments[np.ix_(order, order)] * scale * scale[:, None]
    apart, _ = tensor.element.columns(columns)
    parts = slice(0, apart), slice(apart, columns)

    def descend(coded: Coded, own: slice, other: slice, sweeps: int) -> Coded:
        near = hessian[own, own]
        by = np.argsort(-near.diagonal(), kind="stable") if len(coded.codebook) == 1 else np.arange(len(near))
        beside = None
        if other.stop > other.start:
            beside = ((target - tensor.placed())[:, other] @ hessian[other, own])[:, by]
        found = kernels.codebook_descent(
            np.ascontiguousarray(target[:, own][:, by]),
            np.ascontiguousarray(near[np.ix_(by, by)]),
            np.ascontiguousarray(coded.codes(len(near))[:, by]),
            coded.codebook,
            coded.residual,
            None if beside is None else np.ascontiguousarray(beside),
            sweeps,
            block,
        )
        return Coded.of(found[:, np.argsort(by)], coded.codebook, coded.residual)

    if not isinstance(tensor.outliers, Coded):
        return replace(tensor, main=descend(tensor.main, parts[1], parts[0], passes))
    for _ in range(passes):
        assert isinstance(tensor.outliers, Coded)
        tensor = replace(tensor, outliers=descend(tensor.outliers, parts[0], parts[1], 1))
        tensor = replace(tensor, main=descend(tensor.main, parts[1], parts[0], 1))
    return tensor
