"""SmoothQuant (Xiao et al., 2023, arXiv 2211.10438): moves activation outliers into the weights, so that W8A8 works.

s_j = max|X_j|^alpha / max|W_j|^(1-alpha) (eq. 4) -> `transforms.Smooth`; the maximum is over all consumers of one norm
Y = (X diag(s)^-1)(diag(s) W) (eq. 3)             -> the fold into the norm in front (`transforms.fold`)
alpha (section 5.1)                               -> `alpha`: 0.5 OPT and BLOOM, 0.75 GLM, 0.8 to 0.9 Llama; "search"
                                                     takes the best of 0.3, 0.35 ... 0.95 for each norm
levels O1, O2, O3 (table 2)                       -> `level`: int8 per token, per tensor, per tensor and static
weights, symmetric, max|w| / 127                  -> one scale per output channel, as in the authors' Llama results;
                                                     `weights="tensor"` is table 2
`extra_sites`                                     -> also values -> output and up -> down, which the paper leaves out
Left out: INT8 attention products and the quantized outputs of q, k, v (they need a cache and attention of their own),
the trimming of the top 2 % of tokens for GLM-130B.
"""

from __future__ import annotations

from typing import Literal

from subbyte.errors import RecipeError
from subbyte.recipe import Recipe
from subbyte.schemes import Int, Scheme
from subbyte.solvers import Nearest
from subbyte.systems.registry import system
from subbyte.transforms import Smooth

__all__ = ["smoothquant"]

ACTIVATIONS = {"O1": "int8/token", "O2": "int8/tensor", "O3": "int8/tensor/static"}


@system(title="SmoothQuant", paper="arXiv 2211.10438")
def smoothquant(
    bits: int = 8,
    alpha: float | Literal["search"] = 0.5,
    level: Literal["O1", "O2", "O3"] = "O1",
    weights: Literal["channel", "tensor"] = "channel",
    extra_sites: bool = False,
) -> Recipe:
    """Divides the activations by a factor per channel, multiplies the weights by it, then rounds both to integers.

    bits         bits of a weight's code, 2 to 8; activations always have 8
    alpha        how much of the difficulty moves into the weights, 0 to 1, or search
    level        activations: O1 a scale per token, O2 per tensor, O3 per tensor fixed by calibration
    weights      one scale per output channel or per tensor
    extra_sites  smooth the inputs of the output and down projections too
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise RecipeError("smoothquant.bits", bits, "2 to 8")
    return Recipe(
        name="smoothquant",
        weights=Scheme(Int(bits), weights, narrow=True),
        activations=Scheme.parse(ACTIVATIONS[level]),
        transforms=(Smooth(alpha=alpha, extra_sites=extra_sites),),
        solver=Nearest(eps=1e-5),
        propagate="float",
    )
