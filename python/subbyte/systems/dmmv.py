"""DMMV (Ahmed et al., 2025, arXiv 2508.13437): the largest error of any output, not their mean square.

min_x max_k |a_k x - b_k|, x_j in Q_j      -> `kernels.min_max`: a row of the weight is x, its levels are Q, the tokens
                                              that reach the layer are A, and b what the float row answers them
inputs of the quantized layers before      -> `Statistics.sample`, gathered stage by stage
start from RTN or GPTQ                     -> `start`; a row keeps the grid of its start
swap and single-weight local search        -> `moves`; filters leave out what cannot help, and lose nothing
adaptive large neighbourhoods              -> `iterations`, `share`: random and worst removal, random and greedy repair,
                                              chosen by what they brought so far
outlier separation                         -> `outliers`: a share instead of the threshold, which depends on the model;
                                              the grid leaves them out (released code: spans them)
Ours: iterations instead of seconds, so that runs repeat; at most `tokens` tokens, those of the largest norm, instead of
262,144, with the squares of all of them guarded; one seed. The tokens that are searched gain; the mean over other text
may lose. Left out: look-up tables of SqueezeLLM as a start, which the kernel takes and no system makes.
"""

from __future__ import annotations

from typing import Literal

from subbyte.recipe import Recipe
from subbyte.solvers import MinMax
from subbyte.systems.registry import system, weight_scheme

__all__ = ["dmmv"]


@system(title="DMMV", paper="arXiv 2508.13437")
def dmmv(
    bits: int = 4,
    symmetric: bool = False,
    start: Literal["nearest", "gptq"] = "gptq",
    iterations: int = 5,
    tokens: int = 512,
    moves: Literal["swap", "single", "both"] = "swap",
    active: int = 100,
    l2_guard: bool = True,
    share: float = 0.005,
    outliers: float = 0.0,
    seed: int = 9101,
    true_sequential: bool = True,
) -> Recipe:
    """Codes of another system moved until the worst error of each output is small.

    bits             bits of a weight's code, 1 to 8; a row shares a scale
    symmetric        no zero point: the middle code means zero
    start            whose codes are improved: nearest or gptq
    iterations       neighbourhoods that are searched after the first local minimum
    tokens           whose worst counts: at most so many of those with the largest norm
    moves            swap (one weight up, one down), single, or both
    active           how many of the largest errors choose the weights that are freed
    l2_guard         no move may raise the sum of squared errors over all calibration tokens
    share            of a row's weights that a neighbourhood frees
    outliers         share of the weights, the largest, kept in 16 bits beside the codes; 0.0045 in the paper's models
    seed             of all draws
    true_sequential  calibrate each stage of a block (q/k/v, output, gate/up, down) on the quantized ones before it
    """
    return Recipe(
        name="dmmv",
        weights=weight_scheme(bits, -1, symmetric),
        solver=MinMax(start, iterations, tokens, moves, active, l2_guard, share, outliers, seed),
        propagate="quantized",
        true_sequential=true_sequential,
    )
