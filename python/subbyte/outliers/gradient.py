"""Which weights the float model's loss depends on the most, to first order: one backward pass, block by block."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch

from subbyte.calibration.storage import allocate
from subbyte.outliers.choice import Reduce, Score, largest

if TYPE_CHECKING:
    from subbyte.calibration import Stream

__all__ = ["locate"]


def locate(
    stream: Stream,
    tokens: torch.Tensor,
    names: Collection[str],
    share: float,
    score: Score = "gradient",
    reduce: Reduce = "mean_abs",
) -> dict[str, torch.Tensor]:
    """Where each named weight has its ceil(share * O * I) largest scores: places in it, row after row, [k] i64, rising.

    tokens   [S, T] i64; the loss is the mean next-token cross entropy of a sequence
    score    |G|, G the gradient of the loss, or |G * W|
    reduce   over sequences: the mean of |G|, |mean of G|, or the mean of G squared
    A weight whose gradient is zero everywhere (an expert that no token reached) has none: [0].

    Memory: the inputs of all blocks for these few sequences, one block, and twice the weights of its linears; of the
    gradients only the places stay. Raises CalibrationError (fewer than 2 tokens), NotFiniteError.
    """
    anatomy = stream.anatomy
    hidden = stream.embed(tokens)
    inputs = []
    for i in range(anatomy.n_blocks):
        inputs.append(hidden)
        hidden = stream.block(i).forward(hidden, out=allocate(tuple(hidden.shape)))
    _, upstream = stream.loss(hidden, tokens)
    places: dict[str, torch.Tensor] = {}
    for i in reversed(range(anatomy.n_blocks)):
        block, before = stream.block(i), inputs.pop()
        total: dict[str, torch.Tensor] = {}
        for n in range(len(tokens)):
            gradients, towards = block.backward(before[n : n + 1], upstream[n : n + 1])
            upstream[n] = towards[0]
            for name in gradients.keys() & set(names):
                one = gradients.pop(name)
                one = one.abs_() if reduce == "mean_abs" else one.square_() if reduce == "square" else one
                total[name] = total[name].add_(one) if name in total else one
        for name in sorted(total):
            scores = total.pop(name).abs_()
            if score == "gradient_weight":
                scores.mul_(block.get(name).weight.detach().abs())  # type: ignore[operator]
            places[name] = _largest(scores, share)
    return places


def _largest(scores: torch.Tensor, share: float) -> torch.Tensor:
    if not scores.any():
        return torch.zeros(0, dtype=torch.int64)
    count = math.ceil(share * scores.numel() - 1e-9)
    return torch.from_numpy(largest(scores.numpy(), count)).flatten().nonzero().flatten()
