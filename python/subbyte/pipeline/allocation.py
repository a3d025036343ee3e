"""Bits by sensitivity: which of a recipe's candidate schemes each layer gets, before any is rounded.

    F        E[(T - 1) G * G], G the gradient of a sequence's mean loss with labels drawn from the float model's own
             predictions: the diagonal of the Fisher information of a token
    D(s)     1/2 sum F e(s)^2: what errors e of the weights add to the divergence of the predictions, to second order
             e(s)^2 is that of round to nearest, of schemes that need no codebook; of others w^2 4^-rate. Where the
             solver uses the inputs' Gram matrix to make up for errors, the share of D that this leaves
    chosen   s for each unit, so that sum D(s) is least and the bytes together are no more than the recipe's own

A unit is a linear, or the linears that servers fuse. The least sum is that of Lagrange's multiplier: on the lower
convex hull of each unit's (bytes, D), steps are taken by falling gain for a byte for as long as they fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch

from subbyte.calibration import gradients, measure
from subbyte.schemes import Int, Scheme, Table, stored_bytes
from subbyte.solvers import Nearest

if TYPE_CHECKING:
    from torch import nn

    from subbyte.calibration import Statistics
    from subbyte.pipeline.job import Job

__all__ = ["allotted", "choose", "costs", "left_by_feedback", "squared_errors"]

RIDGE = 0.01
"""Added to each input's square, as solvers damp: few tokens show more correlations than there are."""
Option = tuple[float, float]
"""What a choice takes, and what it costs."""


def allotted(job: Job, tokens: torch.Tensor) -> tuple[dict[str, Scheme], str]:
    """The scheme of every linear of `job.others`, and a sentence about them.

    tokens   [S, T] i64, of which the first are used
    Raises CalibrationError (fewer than 2 tokens a sequence), NotFiniteError.
    """
    given = job.recipe.allocate
    assert given is not None
    losses = costs(job, tokens[: given.sequences], given.seed)
    units, options = _units(job), []
    for unit in units:
        columns = zip(*(losses[name] for name in unit), strict=True)
        sizes = zip(*(_sizes(job, name) for name in unit), strict=True)
        options.append([(float(sum(size)), sum(cost)) for size, cost in zip(sizes, columns, strict=True)])
    places = choose(options, sum(each[0][0] for each in options))
    found = {name: _schemes(job, name)[k] for unit, k in zip(units, places, strict=True) for name in unit}
    before, after = (sum(o[k][1] for o, k in zip(options, at, strict=True)) for at in ([0] * len(options), places))
    share = after / before if before else 1.0
    return found, f"schemes by sensitivity: {share:.2f} of the divergence expected of {job.recipe.weights}"


def costs(job: Job, tokens: torch.Tensor, seed: int) -> dict[str, list[float]]:
    """D for each linear of `job.others`, in its own scheme and in each of the others; see above."""
    found: dict[str, list[float]] = {}
    feedback = "gram" in job.recipe.solver.wanted
    for block, hidden, each in gradients(job.stream, tokens, seed):
        names = [name for name in block.linears if name in job.others]
        fisher = dict.fromkeys(names, torch.zeros(()))
        for one in each:
            for name in names:
                fisher[name] = one.pop(name).square_().add_(fisher[name])
        seen = measure(block, hidden, names, {"gram"}) if feedback and names else {}
        for name in names:
            weight = cast("nn.Linear", block.get(name)).weight.detach()
            share = (tokens.shape[1] - 1) / len(tokens) / 2 * (left_by_feedback(seen[name]) if feedback else 1.0)
            squares = (squared_errors(weight, scheme) for scheme in _schemes(job, name))
            found[name] = [share * float(fisher[name].mul(square).sum()) for square in squares]
            del fisher[name]
    return found


def squared_errors(weight: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """What a scheme does to each weight [O, I]: squares of the errors of round to nearest, where it needs no codebook;
    else what codes of such a rate leave of the weight's own square."""
    if isinstance(scheme.element, Int | Table):
        plain = replace(scheme, float_zero=False, levels=None) if scheme.levels or scheme.float_zero else scheme
        rounded = torch.from_numpy(Nearest().solve(weight.numpy(), plain).tensor.dequantize())
        return torch.square(rounded - weight)
    return torch.square(weight * 2.0**-scheme.rate)


def left_by_feedback(stats: Statistics) -> float:
    """Which share of the outputs' squared error is left when columns make up for each other's errors.

    Of a column's error that share is left which no later column explains: the square of the Cholesky factor's entry of
    the inputs' correlations [I, I]. The geometric mean of these does not depend on the columns' order.
    """
    if stats.gram is None or not stats.tokens:
        return 1.0
    gram = stats.gram.double()
    size = gram.diagonal().sqrt()
    size[size == 0] = 1.0  # an input that is always zero explains nothing
    correlations = gram / size / size[:, None]
    correlations.diagonal().fill_(1.0 + RIDGE)
    return float(torch.linalg.cholesky(correlations).diagonal().log().mean().mul(2).exp())


def choose(options: Sequence[Sequence[Option]], budget: float) -> list[int]:
    """For each unit the number of the option that it gets; what they take is at most the budget, what they cost little.

    Where the budget falls on a step of the hulls, no choice costs less. The cheapest options of all must fit, and the
    first ones too: no choice costs more than these.
    """
    hulls = [_hull(each) for each in options]
    at = [0] * len(hulls)
    left = budget - sum(options[u][hull[0]][0] for u, hull in enumerate(hulls))

    steps = []
    for u, hull in enumerate(hulls):
        for k, (low, high) in enumerate(pairwise(hull)):
            (size, cost), (larger, less) = options[u][low], options[u][high]
            steps.append(((less - cost) / (larger - size), u, k + 1, larger - size))
    for _, u, k, more in sorted(steps):
        if at[u] == k - 1 and more <= left:
            at[u], left = k, left - more
    chosen = [hull[k] for hull, k in zip(hulls, at, strict=True)]
    uniform = sum(each[0][1] for each in options)
    return chosen if sum(each[k][1] for each, k in zip(options, chosen, strict=True)) < uniform else [0] * len(options)


def _hull(options: Sequence[Option]) -> list[int]:
    """The options on the lower convex hull, those that take more cost less."""
    hull: list[int] = []
    for k in sorted(range(len(options)), key=lambda k: options[k]):
        size, cost = options[k]
        if hull and cost >= options[hull[-1]][1]:
            continue
        while len(hull) > 1:
            (first, most), (last, least) = options[hull[-2]], options[hull[-1]]
            if (most - least) * (size - last) > (least - cost) * (last - first):
                break
            hull.pop()
        hull.append(k)
    return hull


def _schemes(job: Job, name: str) -> list[Scheme]:
    return [job.schemes[name], *job.others[name]]


def _sizes(job: Job, name: str) -> list[int]:
    rows, columns = job.source.shape(f"{name}.weight")
    return [stored_bytes(scheme, (rows, columns)) for scheme in _schemes(job, name)]


def _units(job: Job) -> list[list[str]]:
    """The linears that get a scheme together, in the model's order."""
    fused = [] if job.recipe.allow_unfused else [g for i in range(job.anatomy.n_blocks) for g in job.anatomy.fused(i)]
    of = {name: [n for n in group if n in job.others] for group in fused for name in group}
    return [unit for name in job.others if (unit := of.get(name, [name]))[0] == name]
