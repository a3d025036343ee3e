"""AWQ (Lin et al., 2024, arXiv 2306.00978): scale up the weight channels that see large activations, then round.

s_X, mean |x| of a channel (eq. 5)     -> `Statistics.absmean`
s = s_X ** alpha, eq. 4 and 5          -> `transforms.ActivationAwareScale`: alpha = 0, 1/20, ... 19/20, s divided by
                                          sqrt(max s * min s), loss of the whole attention or MLP (released code);
                                          alphas that lose on the first tokens are dropped, unless `exhaustive`
Q(w * diag(s)) (diag(s)^-1 x), eq. 4   -> the fold into the norm or linear in front (`transforms.fold`)
clipping (section 3.2, last paragraph) -> `transforms.ActivationAwareClip`, ten steps down to half the range
quantizer of the code                  -> min-max without forced zero, smallest range 1e-5; `symmetric`:
                                          max|w| / (2^(b-1) - 1)
propagation                            -> "float": each block is calibrated on the outputs of the float blocks before it
Left out: the mixed-precision ablation (1 % of channels kept), and a scale behind activations that cannot absorb one
(GELU): such pairs do not exist in the anatomy, the linears are rounded unscaled.
"""

from __future__ import annotations

from subbyte.recipe import Recipe
from subbyte.solvers import Nearest
from subbyte.systems.registry import system, weight_scheme
from subbyte.transforms import ActivationAwareClip, ActivationAwareScale, Transform

__all__ = ["awq"]

EPS = 1e-5
"""The smallest range of a group in the released code."""


@system(title="AWQ", paper="arXiv 2306.00978")
def awq(
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = False,
    scale: bool = True,
    clip: bool = True,
    duo: bool = False,
    grid: int = 20,
    exhaustive: bool = False,
    grouped: bool = False,
) -> Recipe:
    """A scale per input channel, searched on the block's output, protects the weights that matter; then clip and round.

    bits        bits of a weight's code, 1 to 8
    group_size  input columns that share a scale; -1: a whole row
    symmetric   no zero point: the middle code means zero
    scale       search and apply the channel scales
    clip        search and apply a clipping range for each group of weights (not for queries and keys)
    duo         let the mean size of the weights enter the scale too, as AutoAWQ and llm-compressor do
    grid        number of exponents tried: 0, 1/grid, 2/grid, ...
    exhaustive  try each on all tokens, as released, instead of dropping those that do worse on the first ones
    grouped     also scale values -> output where several query heads share one key-value head
    """
    transforms: list[Transform] = []
    if scale:
        transforms.append(ActivationAwareScale(grid, exhaustive, duo=duo, grouped=grouped, forced_zero=False, eps=EPS))
    if clip:
        transforms.append(ActivationAwareClip(forced_zero=False, eps=EPS))
    return Recipe(
        name="awq",
        weights=weight_scheme(bits, group_size, symmetric, narrow=symmetric),
        transforms=tuple(transforms),
        solver=Nearest(forced_zero=False, eps=EPS),
        propagate="float",
    )
