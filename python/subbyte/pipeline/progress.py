"""What a run says before, while and after it works: plain data for a progress bar, a log or a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["BlockReport", "Callback", "LayerReport", "Plan", "Progress", "Result"]


@dataclass(frozen=True)
class Plan:
    """What is going to happen, stated before the first weight is read.

    peak_bytes  resident memory expected at most, the process as it stands included
    seconds     expected time of the blocks, from a short timing of matrix products on this machine
    """

    model: str
    recipe: str
    format: str
    blocks: int
    linears: int
    parameters: int
    tokens: int
    peak_bytes: int
    seconds: float
    resumed: int = 0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        resumed = f", {self.resumed} of them finished before" if self.resumed else ""
        text = f"{self.tokens} calibration tokens" if self.tokens else "no calibration"
        return (
            f"{self.recipe}: {self.linears} linears in {self.blocks} blocks{resumed}, {text}, format {self.format}; "
            f"expects at most {self.peak_bytes / 2**30:.2f} GiB of memory and about {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class LayerReport:
    """One rounded linear: `loss` in the metric of the solver, `note` what a reader should know."""

    name: str
    scheme: str
    loss: float
    bits_per_weight: float
    note: str = ""


@dataclass(frozen=True)
class BlockReport:
    """One finished block. `error` is the running error: the relative difference between the outputs of the quantized
    and the float model up to and with this block, on a few sequences."""

    index: int
    error: float
    layers: tuple[LayerReport, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `done` of `total` blocks after `seconds`, about `eta` seconds to go.

    stage   "plan" (once, first, with `plan`), "block" (after each block, with `block`), "rest" (embeddings, norms and
            head are being copied), "tune" (all blocks are being trained together), "verify" (the output is being read
            back), "done"
    error   the running relative error, None before the first block
    """

    stage: Literal["plan", "block", "rest", "tune", "verify", "done"]
    done: int
    total: int
    seconds: float
    eta: float
    error: float | None = None
    message: str = ""
    plan: Plan | None = None
    block: BlockReport | None = None


Callback = Callable[[Progress], None]


@dataclass(frozen=True)
class Result:
    """A finished run.

    out               the folder that was written
    verified          relative difference between the logits of the output read back and those of the run; None when the
                      verification was left out
    bits_per_weight   of the quantized linears, every stored bit counted
    """

    out: Path
    format: str
    plan: Plan
    blocks: tuple[BlockReport, ...]
    bits_per_weight: float
    seconds: float
    verified: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def error(self) -> float:
        """The running error after the last block."""
        return self.blocks[-1].error if self.blocks else 0.0
