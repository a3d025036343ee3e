"""AdaDim (Heo et al., 2023, arXiv 2309.15531): groups inside an input channel, which keep its outliers to themselves.

per-OC, groups of inputs in one output channel -> the scheme as usual
per-IC, groups of outputs in one input channel -> scheme by_input; `kernels.wna16_by_input` multiplies x by a group's
  scales once for all its rows, as section 3 has it in mind
AdaDim's choice per layer, by reconstruction error (section 4) -> `transforms.ChooseDimension`: round to nearest,
  inputs of the float block, earlier layers of the block rounded as chosen; a tie goes to per-OC
RTN-ada, GPTQ-ada                      -> `solver`. GPTQ per-OC: act-order with static groups; per-IC: each column's own
  scales when its turn comes, so that act-order costs nothing
the released range, zero point clamped -> `include_zero` no: a group on one side of zero is clipped there
Where a group size does not divide the outputs, a layer keeps groups of inputs (the released code stops).
Left out: AWQ and OmniQuant under the same choice; choosing by GPTQ's own error at twice the cost (not the paper's).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from subbyte.recipe import Recipe
from subbyte.solvers import Gptq, Nearest
from subbyte.systems.registry import system, weight_scheme
from subbyte.transforms import ChooseDimension

__all__ = ["adadim"]


@system(title="AdaDim", paper="arXiv 2309.15531")
def adadim(
    bits: int = 4,
    group_size: int = 128,
    symmetric: bool = False,
    solver: Literal["rtn", "gptq"] = "rtn",
    dimension: Literal["adaptive", "output", "input"] = "adaptive",
    include_zero: bool = False,
    act_order: bool = True,
    damp: float = 0.01,
) -> Recipe:
    """Groups of each layer run along its inputs or its outputs, whichever loses less of the output.

    bits          bits of a weight's code, 1 to 8
    group_size    weights that share a scale; -1: a whole row, or column
    symmetric     no zero point: the middle code means zero
    solver        rtn: every weight to its nearest code; gptq: with error feedback from column to column
    dimension     adaptive: chosen for each layer; output: groups inside one output channel; input: inside one input
    include_zero  ranges always hold zero, in the choice and in rtn
    act_order     gptq: round the columns with the largest activations first
    damp          gptq: share of the Hessian's mean diagonal that is added to its diagonal
    """
    scheme = weight_scheme(bits, group_size, symmetric)
    nearest = Nearest(forced_zero=include_zero, eps=1e-5)
    return Recipe(
        name="adadim",
        weights=replace(scheme, by_input=dimension == "input"),
        solver=nearest if solver == "rtn" else Gptq(act_order=act_order, static_groups=True, damp=damp),
        transforms=(ChooseDimension(include_zero),) if dimension == "adaptive" else (),
        propagate="float",
        allow_unfused=True,
    )
