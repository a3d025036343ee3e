"""One block through a recipe: statistics, transforms, solver."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch

from subbyte.calibration import Block, Staged, Statistics, Wanted, gather, measure
from subbyte.modules import QuantizedLinear
from subbyte.pipeline.compensation import compensated
from subbyte.pipeline.job import Job
from subbyte.pipeline.progress import LayerReport
from subbyte.tensors import QuantizedLayer
from subbyte.transforms import Work

__all__ = ["DTYPES", "Rounded", "put", "round_block", "settle"]

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
SMALLEST = 1e-5
"""Of a static input's range, as in SmoothQuant: a channel group that was never active must not divide by zero."""


@dataclass(frozen=True)
class Rounded:
    """The quantized linears of one block, in the block's order, and what is to be said about them."""

    layers: dict[str, QuantizedLayer]
    reports: tuple[LayerReport, ...]
    notes: tuple[str, ...]


def round_block(
    job: Job,
    i: int,
    block: Block,
    hidden: torch.Tensor | None,
    exact: torch.Tensor | None,
    located: Mapping[str, torch.Tensor],
) -> tuple[Rounded, torch.Tensor | None]:
    """Rewrites and rounds block i in place; its linears then hold what the codes stand for.

    hidden    the block's inputs [S, T, H], overwritten; None where the recipe needs no calibration
    exact     what the float model's block i reads [S, T, H], overwritten with what it gives; None where the recipe does
              not compensate
    located   what `outliers.gradient.locate` found, where the recipe asks for it
    returns   the layers, and the inputs of the next block: the outputs of the block that the recipe propagates; None
              where there is no next block
    """
    recipe, names = job.recipe, [name for name in job.anatomy.linears(i) if name in job.schemes]
    beside = {"absmax"} if recipe.activations else set()
    for_solver = _wanted(recipe.solver.wanted | (recipe.wanted & (beside | {"drift"})))
    for_transforms = _wanted(frozenset().union(*(transform.wanted for transform in recipe.transforms)))
    stages, in_turn = [names], recipe.true_sequential and bool(for_solver) and hidden is not None
    if in_turn:
        stages = [[n for n in stage if n in job.schemes] for stage in job.anatomy.stages(i)]

    schemes = {name: job.schemes[name] for name in names}
    stats: dict[str, Statistics] = {}
    outputs = None
    notes: list[str] = []
    if hidden is not None:
        first = for_transforms | (set() if in_turn else for_solver)
        if recipe.propagate == "float":
            stats, outputs = gather(block, hidden, names if first else [], first)
        elif names and first:
            stats = measure(block, hidden, names, first)
        work = Work(
            block=block,
            pairs=job.anatomy.pairs(i, grouped=True),
            schemes=schemes,
            stats=stats,
            hidden=hidden,
            stored=_stored(job, names[0]) if names else torch.float32,
            activations=recipe.activations,
        )
        for transform in recipe.transforms:
            transform.apply(work)
        stats, notes = work.stats, work.notes
        del work  # it holds statistics, which are as large as the block and go when the first stage is done
    settle(job, block)

    twin = (block.copy(), exact) if exact is not None else None
    staged = Staged(block, hidden, out=hidden, twin=twin) if hidden is not None else None
    layers: dict[str, QuantizedLayer] = {}
    reports = []
    for stage in stages:
        if staged is not None and in_turn and stage:
            stats = {}  # those of the stage before leave memory first
            stats = staged.measure(stage, for_solver)
        for name in stage:
            linear = cast("torch.nn.Linear", block.get(name))
            seen = stats.get(name)
            if name in located:
                seen = replace(seen or Statistics(tokens=0), apart=located[name])
            weight = linear.weight.detach()
            if recipe.compensate and seen is not None:
                weight = compensated(weight, seen, recipe.compensate)
            solved = recipe.solver.solve(weight.numpy(), schemes[name], seen, name)
            layer = QuantizedLayer(solved.tensor, recipe.activations, _input_scale(job, name, stats))
            put(block, name, layer)
            layers[name] = layer
            bits = 8 * layer.nbytes / linear.weight.numel()
            reports.append(LayerReport(name, str(schemes[name]), solved.loss, bits, solved.note))
    if staged is not None and outputs is None and i + 1 < job.anatomy.n_blocks:
        outputs = staged.finish()
    return Rounded(layers, tuple(reports), tuple(notes)), outputs


def put(block: Block, name: str, layer: QuantizedLayer, codes: bool = False) -> None:
    """Lets a linear of the block compute what the quantized layer computes.

    Weights alone: the dequantized weight in the same torch linear, whose product is the fastest for many tokens; with
    `codes`, and wherever inputs are quantized too: a module that runs on the codes.
    """
    linear = cast("torch.nn.Linear", block.get(name))
    if codes or layer.activation is not None:
        block.replace(name, QuantizedLinear(layer, linear.bias, name))
    else:
        # Copied, not swapped in: products depend in their last bits on where an array lies, and torch aligns its own.
        weight = torch.empty(linear.weight.shape)
        weight.copy_(torch.from_numpy(layer.weight.dequantize()))
        linear.weight = torch.nn.Parameter(weight, requires_grad=False)


def _wanted(names: frozenset[str]) -> set[Wanted]:
    """What a pass over the inputs can gather; "apart" comes from the whole model, before its blocks."""
    return cast("set[Wanted]", set(names) - {"apart"})


def _stored(job: Job, name: str) -> torch.dtype:
    return DTYPES[job.source.dtype(f"{name}.weight")]


def settle(job: Job, block: Block) -> None:
    """Rounds what stays float to the dtype it is stored in, so that the rest is fitted to what readers will see."""
    for name, parameter in block.parameters().items():
        if name.removesuffix(".weight") not in job.schemes and name in job.source:
            dtype = DTYPES.get(job.source.dtype(name))
            if dtype is not None and dtype != parameter.dtype:
                parameter.data.copy_(parameter.data.to(dtype))


def _input_scale(job: Job, name: str, stats: Mapping[str, Statistics]) -> float | None:
    """The scale of static inputs: the largest magnitude seen is the largest code."""
    scheme = job.recipe.activations
    if scheme is None or not scheme.static:
        return None
    largest = _largest(stats, [name]) or _largest(stats, _alike(name, stats))
    codes = float(1 << (scheme.bits - 1)) - (1.0 if scheme.narrow else 0.5)
    return max(largest, SMALLEST) / codes


def _largest(stats: Mapping[str, Statistics], names: Sequence[str]) -> float:
    found = [stats[name].absmax for name in names if name in stats and stats[name].tokens]
    return max((float(absmax.max()) for absmax in found if absmax is not None), default=0.0)


def _alike(name: str, stats: Mapping[str, Statistics]) -> list[str]:
    """The same linear of the other experts: an expert without tokens takes the largest range among them."""
    return [other for other in stats if re.sub(r"\d+", "", other) == re.sub(r"\d+", "", name)]
