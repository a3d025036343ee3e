"""Which weights the float model's loss depends on the most, to first order."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch

from subbyte.calibration import gradients
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
    places: dict[str, torch.Tensor] = {}
    for block, _, each in gradients(stream, tokens):
        total: dict[str, torch.Tensor] = {}
        for found in each:
            for name in found.keys() & set(names):
                one = found.pop(name)
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
