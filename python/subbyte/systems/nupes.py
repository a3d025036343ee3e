"""NUPES (Yvinec et al., 2025, arXiv 2308.05600): PowerQuant's exponents and the codes learned with data.

Q_a, Q_a^-1, m                          -> as in `systems.powerquant`, an exponent for each layer (or output)
data-free exponents, the start          -> `solvers.PowerSearch`
min |f(x; W) - f(x; W_q(theta, a))|^2   -> `solvers.PowerLearn`, of each linear: tr((Q - W) H (Q - W)^T), H = E[x x^T],
  which `Statistics.gram` is, on the quantized model so far
u over the whole grid, soft rounding    -> one number a weight, floor(u) + a sigmoid that meets whole numbers, whose
  `sharpness` grows from 2 (to 200: at 50 a few hundred steps leave much of the gain); codes may move by more than 1
d W / d a, d W / d q and their limits   -> `solvers.power_learn.slopes`
AdaRound's regulariser                  -> `push`, in the last 80 % of the run; beta from 20 to 2
hard rounding, least-squares m          -> at the end, `refit`; what does not lower the layer's loss is dropped
No code was released, and the paper's settings of optimiser, soft rounding and calibration are not known to us: those
above are a reconstruction, and so is a loss of one linear, not of a block, which its Gram matrix tells without inputs.
Left out: quantized activations (see `systems.powerquant`), and with them one exponent for weights and activations.
"""

from __future__ import annotations

from typing import Literal

from subbyte.recipe import Recipe
from subbyte.solvers import PowerLearn
from subbyte.systems.registry import power_scheme, system

__all__ = ["nupes"]


@system(title="NUPES", paper="arXiv 2308.05600")
def nupes(
    bits: int = 4,
    group_size: int = -1,
    scope: Literal["layer", "channel"] = "layer",
    iterations: int = 300,
    lr: float = 0.1,
    lr_exponent: float = 1e-3,
    sharpness: float = 200.0,
    push: float = 0.01,
    refit: bool = True,
    clip_search: bool | None = None,
    true_sequential: bool = False,
) -> Recipe:
    """Codes on a power grid and its exponent, learned together from the inputs of each layer.

    bits             bits of a weight's code, 2 to 8
    group_size       input columns of a row that share a scale; -1: the whole row
    scope            what shares an exponent: a layer, or a channel (one output)
    iterations       steps of Adam for each layer
    lr               of the codes, in codes
    lr_exponent      of the exponents
    sharpness        of the soft rounding at the end: slopes between two codes
    push             weight of the regulariser that moves codes to whole numbers
    refit            scales by least squares at the end
    clip_search      look for scales below the largest magnitude, too; none: at 2 bits
    true_sequential  calibrate each stage of a block (q/k/v, output, gate/up, down) on the quantized ones before it
    """
    return Recipe(
        name="nupes",
        weights=power_scheme(bits, group_size, by_row=scope == "channel"),
        solver=PowerLearn(
            scope=scope,
            iterations=iterations,
            lr=lr,
            lr_exponent=lr_exponent,
            sharpness=sharpness,
            push=push,
            refit=refit,
            clip_search=bits == 2 if clip_search is None else clip_search,
        ),
        true_sequential=true_sequential,
    )
