"""Gradients of a float model's loss to the weights of its blocks: one backward pass, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from subbyte.calibration.storage import allocate

if TYPE_CHECKING:
    from subbyte.calibration.block import Block
    from subbyte.calibration.stream import Stream

__all__ = ["gradients"]

Gradients = dict[str, torch.Tensor]


def gradients(
    stream: Stream, tokens: torch.Tensor, seed: int | None = None
) -> Iterator[tuple[Block, torch.Tensor, Iterator[Gradients]]]:
    """From the last block to the first: the block, its inputs [S, T, H] f32, and for each sequence the gradients [O, I]
    f32 to its linears' weights by full name.

    tokens, seed   [S, T] i64 and the labels, as in `Stream.loss`
    Gradients are the receiver's to change. Memory: the inputs of all blocks for these few sequences, one block, and the
    gradients of its linears for one sequence. Raises CalibrationError (fewer than 2 tokens), NotFiniteError.
    """
    anatomy = stream.anatomy
    hidden = stream.embed(tokens)
    inputs = []
    for i in range(anatomy.n_blocks):
        inputs.append(hidden)
        hidden = stream.block(i).forward(hidden, out=allocate(tuple(hidden.shape)))
    _, upstream = stream.loss(hidden, tokens, seed)
    for i in reversed(range(anatomy.n_blocks)):
        block, hidden = stream.block(i), inputs.pop()
        each = _each(block, hidden, upstream)
        yield block, hidden, each
        for _ in each:  # what the receiver left: the block before needs all of it
            pass


def _each(block: Block, inputs: torch.Tensor, upstream: torch.Tensor) -> Iterator[Gradients]:
    """The gradients sequence by sequence; `upstream` [S, T, H] becomes that of the block before."""
    for n in range(len(inputs)):
        found, towards = block.backward(inputs[n : n + 1], upstream[n : n + 1])
        upstream[n] = towards[0]
        yield found
