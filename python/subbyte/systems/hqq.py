"""HQQ (Badri and Shaji, 2023, the blog "Half-Quadratic Quantization of Large Machine Learning Models"): no data.

W ~ s (W_q - z), z a float              -> scheme asym/float_zero; both kept in the dtype of the scales
argmin_z phi(W - Q^-1(Q(W)))            -> `solvers.HalfQuadratic`, phi the l_p norm with p < 1: `p`
sub-problem 1, generalized soft         -> the shrinkage of `kernels.half_quadratic`
  thresholding shrink_lp(x, beta)
sub-problem 2, z <- mean(W_q - (W - W_e) / s)  -> the same kernel; beta <- kappa beta after each pass
released code's extras                  -> `round_zero` at 4 bits, early stopping on the mean error of the layer
Two names of ours: `normalize` and `best`; see below.
axis 0, groups inside one input channel -> scheme by_input; `kernels.wna16_by_input` runs it. A group is neighbouring
  rows, as AdaDim's; in the released code rows out / group_size apart: the same up to their order
meta-data quantization                 -> the scheme's levels: `scale_bits`, `zero_bits`, runs of `run` neighbours. The
  released form of one grid for all zero points is left out (its other form, runs of 128, is ours). Codes are chosen
  again for the scales and zero points that are stored; released codes stay those of the floats
Left out: 1.58 bits, and the adapters of HQQ+ (training is no part of this package).

The released shrinkage is not scale invariant: for weights of usual size beta leaves no error to shrink, and the solver
is a search of the mean. `normalize` lets the shrinkage act whatever the size; off, as it is not always better.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from subbyte.recipe import Recipe
from subbyte.schemes import Levels
from subbyte.solvers import HalfQuadratic
from subbyte.systems.registry import system, weight_scheme

__all__ = ["hqq"]


@system(title="HQQ", paper="none: mobiusml.github.io/hqq_blog")
def hqq(
    bits: int = 4,
    group_size: int = 64,
    axis: Literal[0, 1] = 1,
    scale_bits: int | None = None,
    zero_bits: int | None = None,
    run: int = 128,
    optimize: bool = True,
    p: float = 0.7,
    beta: float = 10.0,
    kappa: float = 1.01,
    iters: int = 20,
    early_stop: bool = True,
    round_zero: bool | None = None,
    normalize: bool = False,
    best: bool = False,
) -> Recipe:
    """Float zero points that minimise an l_p error of the weight, by closed-form steps; needs no calibration text.

    bits        bits of a weight's code, 1 to 8
    group_size  input columns of a row that share a scale and a zero point, or with axis 0 rows of a column; -1: all
    axis        1: groups run along the inputs; 0: along the outputs, so that a group sees one input channel
    scale_bits  bits of a scale's own code (8 is usual); none: scales stay floats
    zero_bits   the same of zero points
    run         rows (columns with axis 0) whose scales share a grid of the second level; it divides them all
    optimize    no: round to nearest from minimum and maximum, with float zero points
    p           exponent of the error, above 0, at most 1
    beta        weight of the quadratic term in the first pass
    kappa       by what it grows with each pass
    iters       passes at most
    early_stop  stop at the first pass that does not lower the mean error of the layer
    round_zero  start from whole zero points; none: at 4 bits, as released
    normalize   measure errors in units of the weight's mean magnitude, which lets the shrinkage act
    best        keep the zero points of the pass with the least mean error, not those after the last
    """
    levels = None if scale_bits is None and zero_bits is None else Levels(scale_bits, zero_bits, run)
    scheme = weight_scheme(bits, group_size, symmetric=False)
    return Recipe(
        name="hqq",
        weights=replace(scheme, float_zero=True, levels=levels, by_input=axis == 0),
        solver=HalfQuadratic(
            p=p,
            beta=beta,
            kappa=kappa,
            steps=iters if optimize else 0,
            stop=early_stop,
            best=best,
            round_zero=bits == 4 if round_zero is None else round_zero,
            normalize=normalize,
        ),
    )
