"""SpQR (Dettmers et al., 2023, arXiv 2306.03078): tiny groups, their scales quantized too, and single outliers apart.

s_ij = min (w_ij - w'_ij)^2 / 2 [(X X^T)^-1]_jj, eq. 2 -> squared errors over the squared diagonal of the factor, the
  released code's form, against a threshold; leaving one weight out of its group shows what the others gain
tau (algorithm 1)                      -> `outliers` times a mean of the layer, as in the code; larger: fewer outliers
beta1 = 16, groups                     -> `group_size`; a range from least to largest weight, zero points are floats
bilevel quantization of s and z, beta2 -> the scheme's levels: `scale_bits`, `zero_bits`, runs of `run` output rows
GPTQ's column loop, percdamp 1         -> `solvers.Bilevel`, `kernels.bilevel`; `damp`, dead columns after damping
permutation orders of the code         -> `order`; the tensor keeps each column's group, and x is gathered by it
CSR outliers (section 5)               -> the sparse part of a `Decomposition`; its entries hold what is missing to the
  error-compensated weight, because the code that stands there decodes to nearly 0 and not 0
Average bits: bits + (scale_bits + zero_bits) / group_size + 64 / (group_size run) + 32 outlier share, and 32 bits for
each row of the sparse part and each column of a reordered weight.
Left out: the released 16x16 tiles of 3 bits (a GPU layout), `keep_last_columns` (half implemented there), the symmetric
grid. Two-level scales are quantized with the floats that are stored, which the released code only rounds afterwards; a
run of equal scales is held exactly (there: a range of -1 to 1). "spearman" starts at the largest Hessian diagonal.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from subbyte.recipe import Recipe
from subbyte.schemes import Levels
from subbyte.solvers import Bilevel
from subbyte.systems.registry import system, weight_scheme

__all__ = ["spqr"]


@system(title="SpQR", paper="arXiv 2306.03078")
def spqr(
    bits: int = 4,
    group_size: int = 16,
    scale_bits: int | None = 3,
    zero_bits: int | None = 3,
    run: int = 16,
    outliers: float | None = 0.2,
    simplified_outliers: bool = False,
    order: Literal["identity", "act_order", "spearman"] = "act_order",
    damp: float = 1.0,
    round_zero: bool = False,
    true_sequential: bool = True,
) -> Recipe:
    """GPTQ on groups of 16 whose scales and zero points have 3 bits, with about a weight in a hundred kept apart.

    bits                 bits of a weight's code, 1 to 8; 3 is the paper's small variant
    group_size           input columns that share a scale and a zero point; -1: a whole row
    scale_bits           bits of a scale's own code; none: scales stay 16-bit floats
    zero_bits            the same of zero points
    run                  output rows whose scales share a grid of the second level; it divides the rows
    outliers             threshold above which a weight is kept in 16 bits: the larger, the fewer; none: no outliers
    simplified_outliers  fit grids to all weights of a group, outliers included
    order                of the columns: identity, act_order (largest activations first) or spearman (similar ones)
    damp                 share of the Hessian's mean diagonal that is added to its diagonal
    round_zero           zero points are whole numbers before they are quantized
    true_sequential      calibrate each stage of a block (q/k/v, output, gate/up, down) on the quantized ones before it
    """
    levels = None if scale_bits is None and zero_bits is None else Levels(scale_bits, zero_bits, run)
    scheme = weight_scheme(bits, group_size, symmetric=False)
    return Recipe(
        name="spqr",
        weights=replace(scheme, float_zero=True, levels=levels, scale_dtype="f16"),
        solver=Bilevel(outliers, simplified_outliers, order, damp, round_zero=round_zero),
        propagate="quantized",
        true_sequential=true_sequential,
    )
