"""One forward pass over the calibration set that stands still in front of each stage of a block's linears."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import cast

import torch
from greenlet import getcurrent, greenlet

from subbyte.calibration.block import Block
from subbyte.calibration.statistics import Statistics, Twin, Wanted, collectors, measure, results
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

    out    where the outputs go: None for a new tensor, `hidden` itself to overwrite it
    twin   where drift is wanted: the float model's block and inputs. It goes through the same stages, and its inputs
           are overwritten with its outputs in the end
    """

    def __init__(
        self,
        block: Block,
        hidden: torch.Tensor,
        out: torch.Tensor | None = None,
        limit: int = IN_MEMORY,
        twin: Twin | None = None,
    ) -> None:
        self._out = allocate(tuple(hidden.shape)) if out is None else out
        self._runs = [_Run(block, hidden)] if twin is None else [_Run(block, hidden), _Run(*twin)]
        self._twin = twin
        widest = max((int(linear.in_features) for linear in block.linears.values()), default=0)  # type: ignore[arg-type]
        waiting = waiting_bytes(hidden.shape[0] * hidden.shape[1], hidden.shape[-1], widest)
        self._waits = waiting * len(self._runs) <= limit

    @torch.no_grad()
    def measure(self, names: Sequence[str], wanted: Collection[Wanted]) -> dict[str, Statistics]:
        """The statistics of linears, none of which was measured before; raises NotFiniteError naming the linear."""
        own = self._runs[0]
        found, leaders = collectors(own.block, names, wanted)
        if len(found) != 1 or not self._waits:
            return measure(own.block, own.hidden, names, wanted, self._twin)
        ((name, collector),) = found.items()
        with ExitStack() as held:
            for run in self._runs:
                held.enter_context(run.holding(name))
            for batches in zip(*(run.batches for run in self._runs), strict=True):
                inputs = [batch.switch() for _, batch in batches]
                self._waits &= not any(batch.dead for _, batch in batches)
                if self._waits:
                    collector(*inputs)
        if not self._waits:  # a batch ran past a linear that it has no tokens for
            for run in self._runs:
                run.start()
            return measure(own.block, own.hidden, names, wanted, self._twin)
        return results(found, leaders)

    @torch.no_grad()
    def finish(self) -> torch.Tensor:
        """The block's outputs [S, T, H] f32, by the linears as they are now."""
        for run, out in zip(self._runs, (self._out, self._twin[1] if self._twin else None), strict=False):
            assert out is not None
            run.finish(out)
        return self._out


class _Run:
    """The batches of one block."""

    def __init__(self, block: Block, hidden: torch.Tensor) -> None:
        self.block = block
        self.hidden = hidden
        self.start()

    def start(self) -> None:
        """All batches from the beginning."""
        run = self.block.run_module
        self.batches = [
            (rows, greenlet(partial(run, self.block.module, call))) for rows, call in self.block.calls(self.hidden)
        ]

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Meanwhile a batch that is switched to comes back with the inputs [n, C] of that linear, and waits there."""

        def wait(x: torch.Tensor) -> torch.Tensor:
            cast("greenlet", getcurrent().parent).switch(x.reshape(-1, x.shape[-1]))
            output: torch.Tensor = self.block.get(name)(x)  # by now rounded, or another module
            return output

        linear = self.block.get(name)
        linear.forward = wait
        try:
            yield
        finally:
            del linear.forward

    def finish(self, out: torch.Tensor) -> None:
        """Runs all batches to their ends."""
        for rows, batch in self.batches:
            out[rows] = batch.switch()
