"""NUPES's solver (Yvinec et al., 2025): codes and exponents learned together from the inputs of a layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from subbyte.errors import RecipeError
from subbyte.schemes import EXPONENTS
from subbyte.solvers.adam import Adam
from subbyte.solvers.base import Floats, Solved, hessian, missed
from subbyte.solvers.power_search import PowerSearch
from subbyte.tensors import TableTensor

if TYPE_CHECKING:
    from subbyte.calibration import Statistics
    from subbyte.schemes import Scheme

__all__ = ["PowerLearn", "slopes", "soft_round"]

BATCH = 1 << 16
"""Weights that are worked on at a time: what belongs to them stays in the second cache."""
BLUNT = 2.0
"""The sharpness of the rounding at the start."""
WARMUP = 0.2
"""Share of the run before anything pushes to whole numbers."""
BETA = 20.0, 2.0
"""The exponent of that push from then on to the end."""


@dataclass(frozen=True)
class PowerLearn:
    """Minimises tr((Q - W) H (Q - W)^T) from `PowerSearch`'s codes on: a number u for each weight, free on the whole
    grid and softly rounded, and the exponents, by Adam; then u to the nearest code. Without gain the start is kept.

    scope            what shares an exponent: a "layer", or a "channel" (one output)
    iterations       steps; 0: none, the refit alone
    lr, lr_exponent  of Adam, for u in codes and for exponents; 0 keeps these
    sharpness        of the rounding at the end, up to which it grows from 2: slopes between two codes
    push             weight of sum(1 - |2 (u - floor u) - 1| ** beta), beta from 20 to 2, beside a loss that counts as 1
                     a weight at the start
    refit            scales by least squares at the end
    clip_search      of `PowerSearch`
    """

    wanted: ClassVar[frozenset[str]] = frozenset({"gram"})
    indexed = False
    sparse = False

    scope: Literal["layer", "channel"] = "layer"
    iterations: int = 300
    lr: float = 0.1
    lr_exponent: float = 1e-3
    sharpness: float = 200.0
    push: float = 0.01
    refit: bool = True
    clip_search: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.iterations <= 100_000:
            raise RecipeError("power_learn.iterations", self.iterations, "0 to 100000", "300 is a usual number")
        for name, value in (("lr", self.lr), ("lr_exponent", self.lr_exponent), ("push", self.push)):
            if not (value >= 0 and math.isfinite(value)):
                raise RecipeError(f"power_learn.{name}", value, "a number >= 0")
        if not BLUNT <= self.sharpness <= 1e4:
            raise RecipeError("power_learn.sharpness", self.sharpness, f"{BLUNT:g} to 10000", "200 is a usual number")

    def solve(self, weight: Floats, scheme: Scheme, stats: Statistics | None = None, name: str = "weight") -> Solved:
        """Rounds `weight` [O, I] f32 with `stats.gram` [I, I].

        Without a single token: as `PowerSearch`, and the note says so. Raises SchemeError, NotFiniteError.
        """
        found = PowerSearch(scope=self.scope, clip_search=self.clip_search).solve(weight, scheme, stats, name)
        if stats is None or not stats.tokens:
            return Solved(found.tensor, found.loss, "saw no calibration tokens: codes and exponent from the weight")
        moments, start = hessian(stats, name), found.tensor
        assert isinstance(start, TableTensor)
        losses = {
            one: missed(weight, one.dequantize(), moments) / 2 for one in self._candidates(start, weight, moments)
        }
        best = min(losses, key=losses.__getitem__)  # the first of equals: the start
        return Solved(best, losses[best])

    def _candidates(self, start: TableTensor, weight: Floats, moments: Floats) -> Iterator[TableTensor]:
        """The start, what is learned from there, and both with scales refitted."""
        tensors = [start]
        if self.iterations and (least := missed(weight, start.dequantize(), moments)) > 0:
            tensors.append(self._learned(start, weight, moments * np.float32(2 * weight.size / least)))
        for tensor in tensors:
            yield tensor
            if self.refit and tensor.scheme.granularity != "tensor":
                yield _refitted(tensor, weight, moments)

    def _learned(self, start: TableTensor, weight: Floats, moments: Floats) -> TableTensor:
        scheme, exponent = start.scheme, np.array(start.exponent, np.float32)[:, None]
        middle, by_row = 1 << scheme.bits - 1, len(exponent) > 1
        top = np.float32(middle - 1)
        scale = np.repeat(start.scale, weight.shape[1] // start.scale.shape[1], axis=1)
        scale = np.ascontiguousarray(np.broadcast_to(scale, weight.shape))
        u: Floats = np.clip(np.sign(weight) * (np.abs(weight) / scale) ** exponent * top, -top, top)
        codes, exponents = Adam(u.shape, self.lr), Adam(exponent.shape, self.lr_exponent)
        count = max(1, BATCH // weight.shape[1])
        for step in range(1, self.iterations + 1):
            done = step / self.iterations
            sharpness = BLUNT * (self.sharpness / BLUNT) ** done
            beta = BETA[0] + (BETA[1] - BETA[0]) * (done - WARMUP) / (1 - WARMUP)
            towards = np.zeros_like(exponent)
            for first in range(0, len(weight), count):
                rows = slice(first, first + count)
                own = rows if by_row else slice(None)
                q, by_u = soft_round(u[rows], sharpness)
                value, by_t, by_exponent = slopes(q / top, exponent[own])
                slope: Any = (value * scale[rows] - weight[rows]) @ moments * scale[rows]
                towards[own] += (slope * by_exponent).sum(axis=1 if by_row else None, keepdims=True)
                slope *= by_t * by_u / top
                if self.push and done > WARMUP:
                    slope += np.float32(self.push) * _pushed(u[rows], beta)
                u[rows] = np.clip(u[rows] - codes.step(slope, step, rows), -top, top)
            exponent[...] = np.clip(exponent - exponents.step(towards, step), *EXPONENTS)
        found = (np.rint(u) + middle).astype(np.uint8)
        return TableTensor.from_codes(found, start.scale, scheme, exponent[:, 0].astype(np.float16))


def soft_round(u: Floats, sharpness: float) -> tuple[Floats, Floats]:
    """floor(u) and a sigmoid of the rest, that meets whole numbers exactly; and the derivative."""
    floor = np.floor(u)
    curve: Any = np.tanh((u - floor - np.float32(0.5)) * np.float32(sharpness / 2))
    height = np.float32(2 * math.tanh(sharpness / 4))
    return floor + np.float32(0.5) + curve / height, (1 - curve * curve) * (np.float32(sharpness / 2) / height)


def slopes(t: Floats, exponent: Floats) -> tuple[Floats, Floats, Floats]:
    """v = sign(t) |t| ** (1 / a) for -1 <= t <= 1, and its derivatives by t and by the exponent a.

    That by t, which has no limit at 0 where a is above 1, is the one at 1 / 512 there; that by a is 0 at 0.
    """
    size, root = np.maximum(np.abs(t), np.float32(1e-30)), 1 / exponent
    logarithm = np.log(size)
    value: Any = np.copysign(np.exp(logarithm * root), t) * (t != 0)
    by_t: Any = root * np.exp(np.maximum(logarithm, np.float32(math.log(1 / 512))) * (root - 1))
    return value, by_t, -value * logarithm * root * root


def _pushed(u: Floats, beta: float) -> Floats:
    """The derivative of 1 - |2 (u - floor u) - 1| ** beta."""
    off: Any = 2 * (u - np.floor(u)) - 1
    found: Floats = np.float32(-2 * beta) * np.sign(off) * np.abs(off) ** np.float32(beta - 1)
    return found


def _refitted(tensor: TableTensor, weight: Floats, moments: Floats) -> TableTensor:
    """The same codes with the scales [O, G] of least loss; those that would not be above 0 stay."""
    scheme, scale = tensor.scheme, tensor.scale
    plain = TableTensor.from_codes(tensor.codes(), np.ones_like(scale), scheme, tensor.exponent).dequantize()
    groups = plain.reshape(*scale.shape, -1)

    def by_group(seen: Floats) -> Floats:
        found: Floats = (seen.reshape(groups.shape) * groups).sum(axis=2, dtype=np.float64)
        return found

    parts = moments.reshape(scale.shape[1], -1, len(moments))
    left = np.stack([by_group(groups[:, g] @ part) for g, part in enumerate(parts)], axis=1)
    # groups whose values are all 0 have no scale to find, and keep theirs
    left += (1e-9 * np.trace(left, axis1=1, axis2=2)[:, None, None] + 1e-30) * np.eye(len(parts))
    found = np.linalg.solve(left, by_group(weight @ moments)[:, :, None])[:, :, 0].astype(np.float32)
    found = scheme.held(np.where(np.isfinite(found) & (found > 0), found, scale))
    return TableTensor(scheme, tensor.shape, tensor.words, found, tensor.exponent)
