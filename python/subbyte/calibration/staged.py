"""One forward pass over the calibration set that stands still in front of each stage of a block's linears."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import cast

import torch
from greenlet import getcurrent, greenlet

from subbyte.calibration.block import Block
from subbyte.calibration.statistics import Collector, Statistics, Wanted, collectors, measure, results
from subbyte.calibration.storage import IN_MEMORY, allocate

__all__ = ["Staged", "waiting_bytes"]

LOCALS = 4
"""Tensors as wide as the hidden states that a block keeps while it waits: the residual, queries, keys and values."""


def waiting_bytes(tokens: int, hidden: int, widest: int) -> int:
    """About what a block keeps while `tokens` tokens wait inside; `widest` is the widest input of a linear."""
    return 4 * tokens * (widest + LOCALS * hidden)


class Staged:
    """Runs `block` on `hidden` [S, T, H] once: `measure` stage after stage, then `finish`.

    Every batch of sequences is a greenlet that waits where the inputs of a stage are ready, so a linear may be rounded
    or replaced when all batches have shown what it reads, and nothing in front of it runs again. Linears that read
    different tensors (experts) cannot be waited for together: these are measured by a pass of their own, and so is
    every stage when what waits would take more than `limit` bytes.

    out   where the outputs go: None for a new tensor, `hidden` itself to overwrite it
    """

    def __init__(
        self, block: Block, hidden: torch.Tensor, out: torch.Tensor | None = None, limit: int = IN_MEMORY
    ) -> None:
        self._block = block
        self._hidden = hidden
        self._out = allocate(tuple(hidden.shape)) if out is None else out
        widest = max((int(linear.in_features) for linear in block.linears.values()), default=0)  # type: ignore[arg-type]
        self._waits = waiting_bytes(hidden.shape[0] * hidden.shape[1], hidden.shape[-1], widest) <= limit
        self._batches = self._start()

    def _start(self) -> list[tuple[slice, greenlet]]:
        module = self._block.module
        return [
            (rows, greenlet(partial(self._block.run_module, module, call)))
            for rows, call in self._block.calls(self._hidden)
        ]

    @torch.no_grad()
    def measure(self, names: Sequence[str], wanted: Collection[Wanted]) -> dict[str, Statistics]:
        """The statistics of linears, none of which was measured before; raises NotFiniteError naming the linear."""
        found, leaders = collectors(self._block, names, wanted)
        if len(found) != 1 or not self._waits:
            return measure(self._block, self._hidden, names, wanted)
        ((name, collector),) = found.items()
        linear = self._block.get(name)
        linear.forward = partial(self._wait, name, collector)
        try:
            for _, batch in self._batches:
                batch.switch()
        finally:
            del linear.forward
        if any(batch.dead for _, batch in self._batches):  # it ran past a linear that it has no tokens for
            self._waits, self._batches = False, self._start()
        return results(found, leaders)

    @torch.no_grad()
    def finish(self) -> torch.Tensor:
        """The block's outputs [S, T, H] f32, by the linears as they are now."""
        for rows, batch in self._batches:
            self._out[rows] = batch.switch()
        return self._out

    def _wait(self, name: str, collector: Collector, x: torch.Tensor) -> torch.Tensor:
        collector(x.reshape(-1, x.shape[-1]))
        cast("greenlet", getcurrent().parent).switch()  # to `measure`, which started or resumed this batch
        output: torch.Tensor = self._block.get(name)(x)  # by now rounded, or another module
        return output
