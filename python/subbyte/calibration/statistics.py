"""What calibration gathers for one linear, in one pass over its inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch

from subbyte import kernels
from subbyte.calibration.block import Block
from subbyte.errors import NotFiniteError, ShapeError

__all__ = ["SAMPLES", "Collector", "Statistics", "Twin", "Wanted", "collectors", "gather", "measure", "results"]

Wanted = Literal["gram", "absmax", "absmean", "sample", "drift"]
Twin = tuple[Block, torch.Tensor]
"""A block of the float model, and its inputs [S, T, H] there."""

SAMPLES = 512
"""A sample keeps every n-th token, n a power of two: at least this many remain, and fewer than twice as many."""


@dataclass(frozen=True)
class Statistics:
    """Inputs of one linear, summed up over `tokens` tokens; what was not asked for is None. All f32, on the CPU.

    gram      [C, C]  sum over tokens of x x^T
    absmax    [C]     largest |x|
    absmean   [C]     mean of |x|
    sample    [n, C]  evenly spread tokens: all of them up to 512, then 512 to 1023
    drift     [C, C]  sum over tokens of (y - x) x^T, with y what the linear reads in the float model; zero for an
                      expert that is not given every token, as its tokens differ from those of the float model's
    apart     [k] i64: places in the weight, row after row, as `outliers.gradient.locate` found; may be empty
    With no token at all (an expert that nothing was routed to) the arrays are zero or empty.
    """

    tokens: int
    gram: torch.Tensor | None = None
    absmax: torch.Tensor | None = None
    absmean: torch.Tensor | None = None
    sample: torch.Tensor | None = None
    drift: torch.Tensor | None = None
    apart: torch.Tensor | None = None

    @property
    def hessian(self) -> torch.Tensor:
        """2 / tokens * gram: the Hessian of the mean squared output error in one row of the weight."""
        if self.gram is None or self.tokens == 0:
            raise ShapeError("hessian", f"{self.tokens} tokens, gram {'not ' * (self.gram is None)}gathered", "a gram")
        return self.gram * (2.0 / self.tokens)


class Collector:
    """An observer that adds the inputs of one linear up. Calls with [n, C] f32, n >= 0, and where there are any the
    float model's inputs of the same tokens; `result()` at the end.

    Raises NotFiniteError, naming the linear, for NaN or infinity: at once, or in `result` where a Gram matrix shows it.
    """

    def __init__(self, name: str, channels: int, wanted: Collection[Wanted]) -> None:
        self.name = name
        self.wanted = frozenset(wanted)
        self.tokens = 0
        self.gram = torch.zeros(channels, channels) if "gram" in self.wanted else None
        self.drift = torch.zeros(channels, channels) if "drift" in self.wanted else None
        self.absmax = torch.zeros(channels)
        self.abssum = torch.zeros(channels, dtype=torch.float64)
        self.kept: list[torch.Tensor] = []
        self.stride = 1
        self.channels = channels

    def __call__(self, x: torch.Tensor, exact: torch.Tensor | None = None) -> None:
        """Adds x [n, C]; `exact`, of the same shape, goes into the drift."""
        if not len(x):
            return
        x = x.float().contiguous()
        if "absmax" in self.wanted or self.gram is None:
            absmax = torch.maximum(x.amax(dim=0), -x.amin(dim=0))  # three times as fast as through x.abs()
            self._finite(absmax)
            torch.maximum(self.absmax, absmax, out=self.absmax)
        if "absmean" in self.wanted:
            self.abssum += x.abs().sum(dim=0, dtype=torch.float64)
        if self.gram is not None:
            # Through NumPy views of the same memory: the one kernel that works in place.
            kernels.accumulate_gram(self.gram.numpy(), x.numpy())
        if "sample" in self.wanted:
            self._sample(x)
        if self.drift is not None and exact is not None:
            self.drift.addmm_((exact - x).T, x)
        self.tokens += len(x)

    def _finite(self, values: torch.Tensor) -> None:
        if not torch.isfinite(values).all():
            raise NotFiniteError(
                f"inputs of {self.name}", "NaN or infinity", "finite activations",
                "look for overflow before this layer, in a block that was quantized too far or in the checkpoint",
            )  # fmt: skip

    def _sample(self, x: torch.Tensor) -> None:
        """Keeps the tokens whose number is a multiple of the stride; doubles the stride when there are too many."""
        first = -self.tokens % self.stride
        self.kept.append(x[first :: self.stride].clone())
        while sum(map(len, self.kept)) >= 2 * SAMPLES:
            self.kept = [torch.cat(self.kept)[::2].clone()]
            self.stride *= 2

    def result(self) -> Statistics:
        """What was seen so far."""
        if self.gram is not None:  # sums of squares: they show what looking at every input would
            self._finite(self.gram.diagonal())
        return Statistics(
            tokens=self.tokens,
            gram=self.gram,
            absmax=self.absmax if "absmax" in self.wanted else None,
            absmean=(self.abssum / max(self.tokens, 1)).float() if "absmean" in self.wanted else None,
            sample=torch.cat([torch.empty(0, self.channels), *self.kept]) if "sample" in self.wanted else None,
            drift=self.drift,
        )


def gather(
    block: Block,
    hidden: torch.Tensor,
    names: Sequence[str],
    wanted: Collection[Wanted],
    out: torch.Tensor | None = None,
) -> tuple[dict[str, Statistics], torch.Tensor]:
    """Runs `block` on `hidden` [S, T, H]; the statistics of the named linears, and the block's outputs.

    Linears that read the same tensor (`block.fused`) are measured once and share the object.
    out   where the outputs go: None for a new tensor, `hidden` itself to overwrite it.
    Raises NotFiniteError naming the linear.
    """
    found, leaders = collectors(block, names, wanted)
    result = block.forward(hidden, found, out=out)
    return results(found, leaders), result


def measure(
    block: Block, hidden: torch.Tensor, names: Sequence[str], wanted: Collection[Wanted], twin: Twin | None = None
) -> dict[str, Statistics]:
    """`gather` where nobody needs the outputs: nothing of the size of `hidden` is allocated.

    twin   where drift is wanted: the float model's block and inputs
    """
    found, leaders = collectors(block, names, wanted)
    if twin is None:
        block.observe(hidden, found)
        return results(found, leaders)
    other, inputs = twin
    for rows, _ in block.calls(hidden):
        exact: dict[str, torch.Tensor] = {}
        other.observe(inputs[rows], {name: partial(exact.__setitem__, name) for name in found})
        whole = hidden[rows].shape[:2].numel()
        seen = {name: x for name, x in exact.items() if len(x) == whole}
        block.observe(hidden[rows], {name: partial(found[name], exact=seen.get(name)) for name in found})
    return results(found, leaders)


def collectors(
    block: Block, names: Sequence[str], wanted: Collection[Wanted]
) -> tuple[dict[str, Collector], dict[str, str]]:
    """One collector for each tensor that the named linears read, by its first reader; and that reader of each name."""
    leaders = {name: name for name in names}
    for group in block.fused:
        members = [name for name in group if name in leaders]
        leaders.update(dict.fromkeys(members, members[0]) if members else {})
    linears = block.linears
    channels = {name: cast("int", linears[name].in_features) for name in set(leaders.values())}
    return {name: Collector(name, channels[name], wanted) for name in leaders if leaders[name] == name}, leaders


def results(found: Mapping[str, Collector], leaders: Mapping[str, str]) -> dict[str, Statistics]:
    """What `collectors` saw, for every name; readers of one tensor share the object."""
    shared = {name: collector.result() for name, collector in found.items()}
    return {name: shared[leader] for name, leader in leaders.items()}
