"""GWQ (Shao et al., 2024, arXiv 2411.00850): the gradient says which weights to keep in 16 bits.

g = dL/dW, first-order term of the loss  -> `Block.backward`, block after block from the head on; L is the mean
  next-token cross entropy of the float model
top 1 % of |g|                         -> `outliers.gradient.locate`, `outliers` of each matrix, ties by place;
  `reduce` over the `samples` sequences (the paper takes one sample: eight windows of 256 tokens are as many tokens)
16-bit outliers                        -> the sparse part of a `Decomposition`: its entries and the codes add up to them
3 or 4 bits for the rest, in groups    -> `solvers.Apart`, to nearest, ranges without the outliers. Plain: GPTQ's rule,
  zero inside and a code. `fine`: groups of 16 whose scales and zero points have 3 bits in runs of 16 rows, as SpQR's
Average bits: bits + (16 + bits) / group_size + 32 outliers (4.48 for 4 bits, groups of 128 and 1 %); `fine`: bits +
0.625 + 32 outliers (4.95, and 3.95 for 3 bits); and 32 bits for each row.
The paper's code is not public; its unknown details are the choices named here.
Left out: one ranking over all matrices of the model, rankings by Hessian or by magnitude (magnitude is what is left
where no gradient arrives), vision towers.
"""

from __future__ import annotations

from dataclasses import replace

from subbyte.outliers import Reduce, Score
from subbyte.recipe import Recipe
from subbyte.schemes import Levels
from subbyte.solvers import Apart
from subbyte.systems.registry import system, weight_scheme

__all__ = ["gwq"]


@system(title="GWQ", paper="arXiv 2411.00850")
def gwq(
    bits: int = 4,
    group_size: int | None = None,
    fine: bool = False,
    outliers: float = 0.01,
    samples: int = 8,
    score: Score = "gradient",
    reduce: Reduce = "mean_abs",
) -> Recipe:
    """The weights with the largest gradients of the loss stay in 16 bits; the others go to their nearest code.

    bits        bits of a weight's code, 1 to 8
    group_size  input columns that share a scale; -1: a whole row; none: 128, or 16 with fine
    fine        quantize scales and zero points too, to 3 bits in runs of 16 output rows
    outliers    share of each matrix that is kept in 16 bits
    samples     calibration sequences that the gradient is taken on
    score       rank by |gradient|, or by gradient_weight: |gradient times weight|
    reduce      over sequences: mean_abs, the mean of |gradient|; abs_mean, |mean gradient|; square, the mean square
    """
    size = (16 if fine else 128) if group_size is None else group_size
    scheme = weight_scheme(bits, size, symmetric=False)
    if fine:
        scheme = replace(scheme, float_zero=True, levels=Levels(3, 3, 16), scale_dtype="f16")
    return Recipe(name="gwq", weights=scheme, solver=Apart(outliers, samples, score, reduce), propagate="float")
