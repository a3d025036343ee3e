"""QuantEase (Behdin et al., 2023, arXiv 2309.01885): cyclic coordinate descent on the layer's squared error.

Sigma = X X^T (section 3)              -> `Statistics.gram`, gathered on the quantized model so far; no damping
f(W^) = ||W X - W^ X||^2, eq. 1        -> the loss of `solvers.CoordinateDescent`
beta~ and q_i(beta~), lemmas 1 and 2   -> `kernels.coordinate_descent`: the minimum of a parabola, then the nearest code
every third iteration unquantized (3.3) -> `relax_every`; the last four are always quantized (released code: after 25)
P Sigma^norm, algorithm 2              -> one product a block of columns, in the kernel; the same updates
grid                                   -> min-max of the original weight with zero inside, as GPTQ's; per channel
gptq_quantease of the code             -> `start` gptq; its target stays the original weight (there: GPTQ's own)
B^ and H^ of algorithm 3               -> the codes and the sparse part (or kept columns) of a `Decomposition`;
P_s, and eta = 1 / (2 lambda_max)      -> `outliers`, `structured`; sweeps over B^ and steps on H^ in turns; the grid
  leaves out s / 2 extremes of a row on each side, with structured outliers, the columns that are outliers now
Left out: the released step of algorithm 3, which leaves B^ in full precision; the formulas of the paper are followed.
"""

from __future__ import annotations

from typing import Literal

from subbyte.recipe import Recipe
from subbyte.solvers import CoordinateDescent
from subbyte.systems.registry import system, weight_scheme

__all__ = ["quantease"]


@system(title="QuantEase", paper="arXiv 2309.01885")
def quantease(
    bits: int = 4,
    group_size: int = -1,
    symmetric: bool = False,
    iterations: int = 30,
    relax_every: int = 3,
    act_order: bool = False,
    start: Literal["weight", "nearest", "gptq"] = "weight",
    mse: bool = False,
    outliers: float = 0.0,
    structured: bool = False,
    true_sequential: bool = True,
) -> Recipe:
    """Every column again and again to its best code while all others stand still; no matrix is inverted.

    bits             bits of a weight's code, 1 to 8
    group_size       input columns that share a scale; -1: a whole row, as in the paper
    symmetric        no zero point: the middle code means zero
    iterations       passes over all columns
    relax_every      of so many passes one moves weights without rounding them; 0: none
    act_order        take the columns with the largest activations first
    start            begin at the weight itself, or at the codes of nearest or gptq (few iterations are then enough)
    mse              search each group's range for the smallest sum |error| ** 2.4
    outliers         share of the weights that are kept in 16 bits beside the codes, 0.01 in the paper
    structured       keep whole columns, that share of them
    true_sequential  calibrate each stage of a block (q/k/v, output, gate/up, down) on the quantized ones before it
    """
    return Recipe(
        name="quantease",
        weights=weight_scheme(bits, group_size, symmetric),
        solver=CoordinateDescent(
            iterations, relax_every, act_order, start, mse, outliers=outliers, structured=structured
        ),
        propagate="quantized",
        true_sequential=true_sequential,
    )
