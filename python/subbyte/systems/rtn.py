"""Round to nearest: the baseline that every paper compares with. No calibration, no transform.

RTN's scale and zero point    -> `Nearest`: s = (max(w, 0) - min(w, 0)) / (2^b - 1), z = rint(-min / s); symmetric
                                 s = 2 max|w| / (2^b - 1), which is also the rule of compressed-tensors' observer
"plain" or "naive" W8A8       -> `activations` int8/token, or int8/tensor as SmoothQuant's tables have it; its weights
                                 are symmetric with s = max|w| / (2^(b-1) - 1)
Left out: nothing.
"""

from __future__ import annotations

from subbyte.errors import RecipeError
from subbyte.recipe import Recipe
from subbyte.schemes import Int, Scheme
from subbyte.solvers import Nearest
from subbyte.systems.registry import system, weight_scheme

__all__ = ["rtn"]


@system(title="Round to nearest", paper="none: the baseline of all the others")
def rtn(
    bits: int = 4, group_size: int = 128, symmetric: bool = False, clip_search: bool = False, activations: str = "none"
) -> Recipe:
    """Every weight to the nearest code of its group's grid; needs no calibration text.

    bits         bits of a weight's code, 1 to 8
    group_size   input columns that share a scale; -1: a whole row, 0: the whole tensor
    symmetric    no zero point: the middle code means zero (always so with quantized activations)
    clip_search  shrink each group's range to the smallest sum |error| ** 2.4, as GPTQ's code offers
    activations  scheme of the inputs, int8/token, int8/tensor or int8/tensor/static; none: they stay floats
    """
    solver = Nearest(clip_search=clip_search)
    if activations == "none":
        weights = (
            Scheme(Int(bits), "tensor", None, symmetric)
            if group_size == 0
            else weight_scheme(bits, group_size, symmetric)
        )
        return Recipe(name="rtn", weights=weights, solver=solver)
    if group_size not in (-1, 0):
        raise RecipeError(
            "rtn.group_size", group_size, "-1 or 0 with quantized activations", "integer products need one scale a row"
        )
    weights = Scheme(Int(bits), "tensor" if group_size == 0 else "channel", narrow=bits > 1)
    return Recipe(name="rtn", weights=weights, solver=solver, activations=Scheme.parse(activations))
