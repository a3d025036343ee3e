"""GPTQ (Frantar et al., 2023, arXiv 2210.17323): error feedback from column to column, weighted by the Hessian.

paper's H = 2 X X^T (section 3)        -> `Statistics.gram`, gathered by the pipeline on the quantized model so far
eq. 2 and 3, H^-1 by Cholesky (3.3)    -> `solvers.Gptq`, `kernels.inverse_factor`, `kernels.gptq`
lazy batches B = 128 (step 2 of 3.3)   -> `Gptq.block`; it changes nothing but speed
dampening lambda = 1 % (step 3)        -> `damp`; a Hessian that stays singular is tried again with ten times as much
grid (section 4, "setup")              -> per row or group min-max with zero inside; `symmetric`: 2 max|w| / (2^b - 1)
released code's extras                 -> `act_order`, `static_groups`, `mse`, `true_sequential`
Left out: the ternary mode (`trits`) of the released code, a different element format; convolutions.

Our defaults differ from the released script's in two points that cost nothing at run time: true-sequential stages, and
below four bits the clip search. At four bits and more a group's extremes are worth keeping: there the search fits the
calibration text better, and text of another kind worse. Act-order stays off for the same reason: on the models of our
tests it gives half of the gain in perplexity back.
"""

from __future__ import annotations

from subbyte.recipe import Recipe
from subbyte.solvers import Gptq
from subbyte.systems.registry import system, weight_scheme

__all__ = ["gptq"]


@system(title="GPTQ", paper="arXiv 2210.17323")
def gptq(
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = False,
    act_order: bool = False,
    static_groups: bool | None = None,
    damp: float = 0.01,
    damp_retries: int = 3,
    mse: bool | None = None,
    fresh_groups: bool = False,
    true_sequential: bool = True,
    compensate: float = 0.0,
) -> Recipe:
    """Columns are rounded one by one; each column's error is pushed into the columns not yet rounded.

    bits             bits of a weight's code, 1 to 8
    group_size       input columns that share a scale; -1: a whole row
    symmetric        no zero point: the middle code means zero
    act_order        round the columns with the largest activations first
    static_groups    fit the groups' grids before rounding; none: where act_order asks for it, as the column index that
                     it needs otherwise is held by subbyte's own format alone
    damp             share of the Hessian's mean diagonal that is added to its diagonal
    damp_retries     how often a singular Hessian is tried again with ten times the damping
    mse              search each group's range for the smallest sum |error| ** 2.4; none: below four bits
    fresh_groups     dynamic groups are fitted on weights updated to the last column, not to the last block
    true_sequential  calibrate each stage of a block (q/k/v, output, gate/up, down) on the quantized ones before it
    compensate       share of the earlier layers' error, 0 to 1, that each weight makes up for before it is rounded
                     (QEP, arXiv 2504.09629): 0.5 helps at two bits
    """
    return Recipe(
        name="gptq",
        weights=weight_scheme(bits, group_size, symmetric),
        solver=Gptq(
            act_order=act_order,
            static_groups=act_order if static_groups is None else static_groups,
            damp=damp,
            damp_retries=damp_retries,
            mse=bits < 4 if mse is None else mse,
            fresh_groups=fresh_groups,
        ),
        propagate="quantized",
        true_sequential=true_sequential,
        compensate=compensate,
    )
