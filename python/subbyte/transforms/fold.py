"""The fold engine: divide a producer's output channels by s, multiply its consumers' input columns by s.

One function for every kind of `anatomy.Pair`. The model's function stays as it is: exactly in exact arithmetic, and in
the stored dtype as nearly as that allows. The gain of a norm is stored in 16 bits, so `gain / s` gets rounded; the
consumers are then multiplied by `gain / rounded(gain / s)` instead of s, and what rounding did to the gain is undone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subbyte.errors import ArchitectureError, NotFiniteError, RangeError, ShapeError
from subbyte.transforms.base import Floats, Work

if TYPE_CHECKING:
    from subbyte.anatomy import Pair
    from subbyte.calibration import Statistics

__all__ = ["fold", "pooled", "scaled"]


def fold(work: Work, pair: Pair, scale: Floats) -> Floats:
    """Moves `scale` [C] > 0 from the producer of `pair` into its consumers; returns the scale really applied.

    C is the number of input columns of the consumers. The statistics of the consumers are rescaled too.
    Raises ShapeError, RangeError and NotFiniteError for a scale that does not fit the pair (grouped queries need equal
    scales over the query heads of one key-value head), ArchitectureError for tied weights.
    """
    consumers = [*pair.consumers, *pair.floats]
    scale = np.ascontiguousarray(scale, np.float32)
    for name in consumers:
        columns = work.weight(name).shape[1]
        if scale.shape != (columns,):
            raise ShapeError(f"scale of {pair.producer}", scale.shape, f"({columns},): the columns of {name}")
    if not np.isfinite(scale).all():
        raise NotFiniteError(f"scale of {pair.producer}", "NaN or infinity", "finite numbers")
    if not (scale > 0).all():
        raise RangeError(f"scale of {pair.producer}", float(scale.min()), "numbers above 0")
    _refuse_tied(work, [pair.producer, *consumers])
    if pair.kind == "norm":
        scale = _divide_norm(work, pair, scale)
    else:
        _divide_rows(work, pair, scale)
    rescaled: dict[int, Statistics] = {}  # consumers of one input share one object, and go on sharing it
    for name in consumers:
        work.weight(name)[...] *= scale
        if name in work.stats:
            stats = work.stats[name]
            if id(stats) not in rescaled:
                rescaled[id(stats)] = scaled(stats, scale)
            work.stats[name] = rescaled[id(stats)]
    return scale


def pooled(pair: Pair, values: Floats, how: Any) -> Floats:
    """Values per input channel [C], made equal by `how` (np.max, np.mean) over the query heads that share a key-value
    head; unchanged where every query head has its own."""
    if pair.repeats == 1:
        return values
    heads = values.reshape(pair.kv_heads, pair.repeats, pair.head_dim)
    one: Floats = how(heads, axis=1, keepdims=True)
    return np.ascontiguousarray(np.broadcast_to(one, heads.shape)).reshape(values.shape)


def scaled(stats: Statistics, scale: Floats) -> Statistics:
    """What calibration would have gathered if every input channel j had been divided by scale[j]."""
    import torch

    inverse = torch.from_numpy(np.float32(1) / scale)
    absmax, absmean, sample, gram = stats.absmax, stats.absmean, stats.sample, stats.gram
    return replace(
        stats,
        absmax=None if absmax is None else absmax * inverse,
        absmean=None if absmean is None else absmean * inverse,
        sample=None if sample is None else sample * inverse,
        gram=None if gram is None else gram * inverse * inverse[:, None],
    )


def _divide_norm(work: Work, pair: Pair, scale: Floats) -> Floats:
    """Divides gain and bias of a norm; the scale that the rounded gain stands for."""
    import torch

    norm = work.module(pair.producer)
    gain = norm.weight.detach() + pair.norm_offset
    limit = torch.finfo(work.stored).max
    stored = (gain / torch.from_numpy(scale) - pair.norm_offset).clamp(-limit, limit).to(work.stored).float()
    moved = stored + pair.norm_offset
    # A gain of zero says nothing about s; one that rounding took to zero could not be undone: that channel stays.
    lost = (moved == 0) & (gain != 0)
    stored = torch.where(lost, norm.weight.detach(), stored)
    exact = torch.where(moved == 0, torch.from_numpy(scale), gain / moved)
    exact = torch.where(lost, torch.ones_like(exact), exact)
    norm.weight.data.copy_(stored)
    if getattr(norm, "bias", None) is not None:
        norm.bias.data.div_(exact)
    applied: Floats = exact.numpy()
    return applied


def _divide_rows(work: Work, pair: Pair, scale: Floats) -> None:
    """Divides the last rows of a linear: joined projections hold values, or the linear half of the MLP, last."""
    rows = scale
    if pair.repeats > 1:
        heads = scale.reshape(pair.kv_heads, pair.repeats, pair.head_dim)
        if not (heads == heads[:, :1]).all():
            raise RangeError(
                f"scale of {pair.producer}",
                "different scales for query heads of one key-value head",
                "equal ones",
                "use transforms.fold.pooled",
            )
        rows = heads[:, 0].reshape(-1)
    producer = work.module(pair.producer)
    if len(rows) > len(producer.weight):
        raise ShapeError(f"scale of {pair.producer}", len(rows), f"at most its {len(producer.weight)} output rows")
    work.weight(pair.producer)[-len(rows) :] /= rows[:, None]
    if producer.bias is not None:
        producer.bias.detach().numpy()[-len(rows) :] /= rows


def _refuse_tied(work: Work, names: Iterable[str]) -> None:
    """A weight that two modules share cannot be scaled for one of them."""
    owners: dict[int, list[str]] = {}
    for name, parameter in work.block.module.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter.data_ptr(), []).append(name)
    for name in names:
        shared = owners.get(work.module(name).weight.data_ptr(), [])
        if len(shared) > 1:
            raise ArchitectureError(
                f"weight of {name}",
                f"shared by {' and '.join(shared)}",
                "a weight of its own",
                "leave the transform out",
            )
