"""Fine-tuning after rounding: what a quantized model keeps as floats learns from the float model, the codes stay.

QuIP# (Tseng et al., 2024, arXiv 2402.04396, section 5) trains first within each block, towards the float block's
outputs, and then end to end, towards the float model's predictions; VPTQ (Liu et al., 2024, arXiv 2409.17066,
section 3.4) the same for its codebooks. Both are one loop here, over other parameters and another loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import nn

from subbyte.calibration import Block
from subbyte.modules import TrainableLinear
from subbyte.pipeline.job import Job
from subbyte.pipeline.rounding import Rounded, put, settle
from subbyte.recipe import Training
from subbyte.tensors import QuantizedLayer

__all__ = ["learn", "settled", "trainable", "tune_block", "tune_model"]

Loss = Callable[[torch.Tensor], torch.Tensor]
"""Of the sequences with these numbers [n] i64: their mean, a scalar."""


def tune_block(
    job: Job, block: Block, rounded: Rounded, inputs: torch.Tensor, outputs: torch.Tensor, training: Training
) -> Rounded:
    """Trains a rounded block in place; its layers afterwards, which it computes with.

    inputs    [S, T, H]: what the quantized model gives it
    outputs   [S, T, H]: what the float model's block makes of the float model's inputs
    """
    for name, layer in rounded.layers.items():
        trainable(block, name, layer)
    size = outputs.square().mean()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(block.through(inputs[rows]), outputs[rows]) / size

    before, after = learn([block.module], loss, len(inputs), training)
    note = f"tuned: error of the outputs {before:.3g} -> {after:.3g} on sequences held out"
    return replace(rounded, layers=settled(job, block), notes=(*rounded.notes, note))


def tune_model(
    blocks: list[Block],
    head: Callable[[torch.Tensor], torch.Tensor],
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    training: Training,
    encoder: bool,
) -> tuple[float, float]:
    """Trains blocks with `trainable` linears together; the loss before and after, on sequences held out.

    head     of hidden states behind the last block [n, T, H], with gradients
    inputs   [S, T, H] in front of the first block
    outputs  [S, T, H]: what the float model has behind its last block
    encoder  the loss is the squared error of the outputs over their mean square; else the divergence (Kullback-Leibler,
             nats a token) of the predictions from the float model's
    """

    def loss(rows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = head(outputs[rows])
        hidden = inputs[rows]
        for block in blocks:
            hidden = block.through(hidden)
        found = head(hidden)
        if encoder:
            return nn.functional.mse_loss(found, wanted) / wanted.square().mean()
        found, wanted = (torch.log_softmax(logits, -1).flatten(0, 1) for logits in (found, wanted))
        return nn.functional.kl_div(found, wanted, reduction="batchmean", log_target=True)

    return learn([block.module for block in blocks], loss, len(inputs), training)


def learn(modules: list[nn.Module], loss: Loss, count: int, training: Training) -> tuple[float, float]:
    """Adam over the floats of `TrainableLinear`s in `modules`, and over their norms and biases; the rate falls to zero
    in equal steps. The state that does best on the sequences held out is kept. Their loss before, and in that state.

    count   of sequences, at least 2; the last of them are held out
    """
    held = min(max(round(training.held_out * count), 1), count - 1)
    seen, apart = torch.arange(count - held), torch.arange(count - held, count)
    inner = [part for module in modules for part in module.modules()]
    floats = [p for part in inner if isinstance(part, TrainableLinear) for p in part.floats.values()]
    taken = {id(p) for p in floats}
    others = [p for module in modules for p in module.parameters() if p.ndim == 1 and id(p) not in taken]
    learning = [*floats, *others]
    for parameter in learning:
        parameter.requires_grad_(True)

    def held_out() -> float:
        with torch.no_grad():
            parts = [float(loss(rows)) * len(rows) for rows in _batches(apart, training.batch)]
        return sum(parts) / held

    groups = [{"params": floats, "lr": training.rate}, {"params": others, "lr": training.other_rate}]
    adam = torch.optim.Adam([group for group in groups if group["params"]])
    steps = training.epochs * -(-len(seen) // training.batch)
    falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / steps)
    drawn = torch.Generator().manual_seed(0)
    before = best = held_out()
    kept, waited = [p.detach().clone() for p in learning], 0
    try:
        for _ in range(training.epochs):
            for rows in _batches(seen[torch.randperm(len(seen), generator=drawn)], training.batch):
                adam.zero_grad()
                with torch.enable_grad():
                    torch.autograd.backward(loss(rows))
                adam.step()
                falling.step()
            found = held_out()
            waited += 1
            if found < best:
                best, waited = found, 0
                kept = [p.detach().clone() for p in learning]
            if waited == training.patience:
                break
    finally:
        for parameter, values in zip(learning, kept, strict=True):
            parameter.requires_grad_(False)
            parameter.grad = None
            parameter.data.copy_(values)
    return before, best


def _batches(rows: torch.Tensor, size: int) -> list[torch.Tensor]:
    return [rows[n : n + size] for n in range(0, len(rows), size)]


def trainable(block: Block, name: str, layer: QuantizedLayer) -> None:
    """Puts a quantized layer whose floats can learn in the place of a linear of the block."""
    block.replace(name, TrainableLinear(layer, cast("nn.Linear", block.get(name))))


def settled(job: Job, block: Block) -> dict[str, QuantizedLayer]:
    """The layers of a block whose linears are `trainable`, as they are stored; the block then computes with these."""
    layers: dict[str, QuantizedLayer] = {}
    for name, linear in block.linears.items():
        if isinstance(linear, TrainableLinear):
            layers[name] = linear.layer()
            block.replace(name, linear.linear)
            put(block, name, layers[name])
    settle(job, block)
    return layers
