"""QuIP (Chee et al., 2023, arXiv 2307.13304): adaptive rounding between random rotations, for two bits a weight.

H = E[x x^T] (section 3)               -> `Statistics.gram`, on the quantized model so far; its mean diagonal is made 1
LDLQ, algorithm 3; H = (L)D(L)^T       -> `solvers.Ldlq`, `kernels.ldlq`; GPTQ gives the same codes on flipped columns
incoherence, algorithms 1 and 2        -> `tensors.Rotated`: U and V stay at run time, as seeds; "kronecker" is the
  paper's product of two rotations between permutations, "block" the one that the released flags run, with rotations of
  their own for every row and column, "hadamard" QuIP#'s transform
diagonal rescaling (section 4.2)       -> `rescale`; 1 / s is kept in 16 bits and multiplies the inputs
rho = 2.4, the quantization range      -> `spread`, in root mean squares of the rotated weight; one scale a tensor
greedy passes (supplement)             -> `passes`; the released code's ldlqRG adds them to columns in rising order of
  the diagonal, allbal has nothing else
released order: rescale, rotate, damp  -> `ridge` 0.01 before the rotation, `damp` 0.01 of the mean after it
stochastic rounding (section 3)        -> `rounding` stochastic: unbiased, and worse on layers, as in the paper
bounded feedback (supplement)          -> `rounding` ldlbal_admm: the factor's inverse has columns of norm 1 at most
No incoherence: min-max grids by rows. Left out: nothing.
"""

from __future__ import annotations

from typing import Literal

from subbyte.recipe import Recipe
from subbyte.schemes import Scheme
from subbyte.solvers import Ldlq
from subbyte.systems.registry import system, weight_scheme

__all__ = ["quip"]


@system(title="QuIP", paper="arXiv 2307.13304")
def quip(
    bits: int = 2,
    rounding: Literal["ldlq", "ldlqRG", "allbal", "stochastic", "ldlbal_admm", "nearest"] = "ldlq",
    incoherence: Literal["kronecker", "block", "hadamard", "none"] = "kronecker",
    rescale: bool = True,
    passes: int | None = None,
    spread: float = 2.4,
    damp: float = 0.01,
    seed: int = 0,
    true_sequential: bool = True,
) -> Recipe:
    """Weights and Hessian are rotated at random, then rounded with linear feedback; the rotations stay at run time.

    bits             bits of a weight's code, 1 to 8
    rounding         ldlq, ldlqRG (columns sorted, greedy passes after), allbal (greedy passes alone), stochastic,
                     ldlbal_admm (bounded feedback) or nearest
    incoherence      the rotations: kronecker (the paper's), block (the released flags'), hadamard, or none
    rescale          balance the columns of the weight against the inputs before the rotations
    passes           greedy passes; none: 10 for ldlqRG and allbal, as in the paper's runs, else 0
    spread           range of the codes in root mean squares of the weight, to each side
    damp             share of the Hessian's mean diagonal that is added to its diagonal after the rotation
    seed             of the rotations and of stochastic rounding
    true_sequential  calibrate each stage of a block (q/k/v, output, gate/up, down) on the quantized ones before it
    """
    rows = weight_scheme(bits, -1, symmetric=False)
    whole = Scheme(rows.element, "tensor", symmetric=False, float_zero=True, scale_dtype="f32")
    usual = 10 if rounding in ("ldlqRG", "allbal") else 0
    return Recipe(
        name="quip",
        weights=rows if incoherence == "none" else whole,
        solver=Ldlq(
            incoherence=incoherence,
            rescale=rescale,
            rounding=rounding,
            passes=usual if passes is None else passes,
            spread=spread,
            damp=damp,
            seed=seed,
        ),
        propagate="quantized",
        true_sequential=true_sequential,
    )
