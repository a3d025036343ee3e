"""PowerQuant (Yvinec et al., 2023, arXiv 2301.09858): uniform steps of a power of the weights; no data.

Q_a(x) = round(sign(x) (|x| / m)^a n)   -> elements `power2` to `power8`, n = 2^(bits-1) - 1; `TableTensor.nearest`
Q_a^-1(q) = sign(q) (|q| / n)^(1/a) m   -> its table of values; `kernels.lookup` multiplies by it, whatever the exponent
m = max|x|                              -> the scale, of an output, a group of inputs or the tensor: `group_size`
argmin_a sum_l |W_l - Q^-1(Q(W_l))|_p   -> `solvers.PowerSearch`, p = 2, scope "model": one exponent for all layers. In
  place of Nelder-Mead, every exponent from 0.10 to 1.50 in steps of 0.01, then of 0.001: exactly, by sums over sorted
  magnitudes, which tell the error of all of them at the price of one
a = 1/2, whose products integers do     -> `exponent=0.5`
2 bits (the values are -m, 0, m)        -> `clip_search`: no exponent below 1 helps with m = max|x|
Left out: p other than 2; quantized activations and the power fused into them, which have an integer product for a = 1/2
alone, when values are squares that `kernels.w8a8` multiplies exactly.
"""

from __future__ import annotations

from typing import Literal

from subbyte.recipe import Recipe
from subbyte.solvers import PowerSearch
from subbyte.systems.registry import power_scheme, system

__all__ = ["powerquant"]


@system(title="PowerQuant", paper="arXiv 2301.09858")
def powerquant(
    bits: int = 4,
    group_size: int = -1,
    scope: Literal["model", "layer", "channel"] = "model",
    exponent: float | None = None,
    clip_search: bool | None = None,
) -> Recipe:
    """Uniform steps of a power of the weights, with the exponent of least error; needs no calibration text.

    bits         bits of a weight's code, 2 to 8
    group_size   input columns of a row that share a scale; -1: the whole row
    scope        what shares an exponent: the model, a layer, or a channel (one output)
    exponent     of all layers, in place of a search; none: searched
    clip_search  look for scales below the largest magnitude, too; none: at 2 bits
    """
    return Recipe(
        name="powerquant",
        weights=power_scheme(bits, group_size, by_row=scope == "channel"),
        solver=PowerSearch(scope, exponent, bits == 2 if clip_search is None else clip_search),
    )
