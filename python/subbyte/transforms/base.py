"""What a transform works on, and what it must offer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels

if TYPE_CHECKING:
    import torch

    from subbyte.anatomy import Pair
    from subbyte.calibration import Block, Statistics
    from subbyte.schemes import Scheme

__all__ = ["Floats", "Transform", "Work", "rounded"]

Floats = NDArray[np.float32]


@dataclass
class Work:
    """One block while transforms rewrite it.

    block        the block in float32; its parameters are changed in place
    pairs        every pair of the block, those with grouped queries included
    schemes      scheme of each linear that gets quantized, scale dtypes resolved
    stats        what calibration gathered for these linears; a transform that rescales inputs rescales it too
    hidden       the block's inputs [S, T, H]
    stored       the dtype in which the checkpoint holds what stays float
    activations  scheme of the linears' inputs, None: floats
    notes        what the log should say
    """

    block: Block
    pairs: Sequence[Pair]
    schemes: dict[str, Scheme]
    stats: dict[str, Statistics]
    hidden: torch.Tensor
    stored: torch.dtype
    activations: Scheme | None = None
    notes: list[str] = field(default_factory=list)

    def module(self, name: str) -> Any:
        """A module of the block by its full name."""
        return self.block.get(name)

    def weight(self, name: str) -> Floats:
        """The weight of a linear or norm as a NumPy view: writing into it changes the module."""
        view: Floats = self.module(name).weight.detach().numpy()
        return view

    def seen(self, names: Iterable[str]) -> list[Statistics]:
        """The statistics of those linears that saw tokens: the experts that no token reached have none."""
        return [self.stats[name] for name in names if name in self.stats and self.stats[name].tokens > 0]

    def absmean(self, names: Iterable[str]) -> Floats | None:
        """Mean |x| of each input channel [C] f32 over all tokens that these linears saw, as experts see different ones
        of the same input; None where none saw any."""
        seen = self.seen(names)
        if not seen:
            return None
        tokens = sum(stats.tokens for stats in seen)
        means = [np.asarray(stats.absmean, np.float64) * (stats.tokens / tokens) for stats in seen]
        mean: Floats = np.sum(means, axis=0).astype(np.float32)
        return mean


class Transform(Protocol):
    """A rewrite of a block that leaves its function as it is. `wanted` names the statistics it reads."""

    @property
    def wanted(self) -> frozenset[str]:
        """The statistics that have to be gathered."""
        ...

    def apply(self, work: Work) -> None:
        """Rewrites the block in place."""
        ...


def rounded(weight: Floats, scheme: Scheme, forced_zero: bool, eps: float) -> Floats:
    """`weight` [O, I] after a round trip through its codes, as `solvers.Nearest` would round it."""
    if scheme.by_input:
        columns = np.ascontiguousarray(weight.T)
        return np.ascontiguousarray(rounded(columns, replace(scheme, by_input=False), forced_zero, eps).T)
    rows = weight.reshape(1, -1) if scheme.granularity == "tensor" else weight
    group = scheme.group(rows.shape[1])
    scale, zero = kernels.fit_affine(
        rows,
        scheme.bits,
        group=group,
        symmetric=scheme.symmetric,
        narrow=scheme.narrow,
        forced_zero=forced_zero,
        eps=eps,
        scale_dtype=scheme.scale_dtype,
    )
    codes = kernels.quantize_affine(rows, scale, zero, scheme.bits, group=group)
    back: Floats = kernels.dequantize_affine(codes, scale, zero, group=group).reshape(weight.shape)
    return back
