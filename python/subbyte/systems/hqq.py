"""HQQ (Badri and Shaji, 2023, the blog "Half-Quadratic Quantization of Large Machine Learning Models"): no data.

W ~ s (W_q - z), z a float              -> scheme asym/float_zero; both kept in the dtype of the scales
argmin_z phi(W - Q^-1(Q(W)))            -> `solvers.HalfQuadratic`, phi the l_p norm with p < 1: `p`
sub-problem 1, generalized soft         -> the shrinkage of `kernels.half_quadratic`
  thresholding shrink_lp(x, beta)
sub-problem 2, z <- mean(W_q - (W - W_e) / s)  -> the same kernel; beta <- kappa beta after each pass
released code's extras                  -> `round_zero` at 4 bits, early stopping on the mean error of the layer
Two names of ours: `normalize` and `best`; see below.
Left out: axis 0 (groups that run along the outputs: no layout of ours has them yet), scales and zero points that are
quantized again (deprecated by its authors), 1.58 bits, and the adapters of HQQ+ (training is no part of this package).

The released shrinkage is not scale invariant: for weights of usual size beta leaves no error to shrink, and the solver
is a search of the mean. `normalize` lets the shrinkage act whatever the size; off, as it is not always better.
"""

from __future__ import annotations

from dataclasses import replace

from subbyte.recipe import Recipe
from subbyte.solvers import HalfQuadratic
from subbyte.systems.registry import system, weight_scheme

__all__ = ["hqq"]


@system(title="HQQ", paper="none: mobiusml.github.io/hqq_blog")
def hqq(
    bits: int = 4,
    group_size: int = 64,
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
    group_size  input columns that share a scale and a zero point; -1: a whole row
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
    return Recipe(
        name="hqq",
        weights=replace(weight_scheme(bits, group_size, symmetric=False), float_zero=True),
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
