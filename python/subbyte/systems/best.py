"""Best: our own composition of what the published systems of weight-only quantization found.

QuIP#'s rotations and lattice codebook    -> `tensors.Rotated` with Hadamard matrices, `schemes.E8p`, and its pass of
                                             rounding with feedback, then coordinate descent (`solvers.Ldlq`)
QuIP's rescaling, which QuIP# leaves out  -> `rescale`: columns balanced against the inputs before they are rotated; it
                                             is what keeps activation outliers from deciding the rounding
our `level`                               -> the same for the outputs: rows of one size, so that none decides another's
                                             rounding and all lose the same share. Their sizes go into the vector
                                             beside the rotations, at no bit
our ridge of 0.1 instead of 0.01          -> feedback that does not drive weights out of the codebook's reach: a lower
                                             loss, on the calibration text too, than the exact Hessian gives
our `spread`: 1 / 0.9                     -> for the same reason, above the codebook's own 1 / 1.03
QuIP#'s trained vectors beside the        -> `refits`: fitted by least squares to each layer's outputs, and the codes
  rotations (section 5)                      found anew under them; the vectors are stored anyway, so it costs no bit
GPTQ's true-sequential stages             -> each stage of a block is calibrated on the quantized ones before it
QEP (arXiv 2504.09629)                    -> `compensate`: each weight is first moved a quarter of the way to what
                                             undoes the error that its inputs bring along
VPTQ, at 3 and 4 bits in the place of     -> `schemes.Vectors`, `solvers.Vptq`: codebooks of each layer's own, found by
  lattice and rotations                      weighted k-means and rounded to with feedback; the lattice is a sum of two
                                             codewords there, and further from what a code of 3 or 4 bits can do
AWQ's and SmoothQuant's folding, in the   -> `transforms.Balance`: the few channels that stand out are folded back
  place of the rotations' rescaling          among the others, at no bit; all others stay as training left them
QuantEase's descent, for vectors          -> `passes` and `refits` there: codes found anew, column after column, and
                                             codebooks fitted to them by least squares, in the place of VPTQ's tuning;
                                             with a tenth more on the Hessian's diagonal, entry by entry, as the exact
                                             one gives a lower loss of the layers but worse predictions
bits by sensitivity, above 2 bits         -> `allocate`: each layer's codebook has as many words, an eighth to
                                             four times that many, as its Fisher information and what feedback leaves of
                                             its errors say (`pipeline.allocation`), at the bits of one size for all
Left out: groups and half-quadratic scales, which have nothing to do between rotations; sparse outliers, which cost more
bits than they save there; fine-tuning, which `Recipe.tune_blocks` and `tune_model` add to this as to any recipe, for
more time than all of the rest. Choosing between both for each layer by the smaller loss of its outputs: on the trained
models the predictions got worse by it.
"""

from __future__ import annotations

from subbyte.errors import RecipeError
from subbyte.recipe import Allocation, Recipe
from subbyte.schemes import E8p, Scheme, Vectors
from subbyte.solvers import Ldlq, Solver, Vptq
from subbyte.systems.registry import system
from subbyte.transforms import Balance

__all__ = ["best"]

COUNTS = {3: 64, 4: 256}
"""Codewords of two weights, by bits."""
FACTORS = 1 / 8, 1 / 4, 1 / 2, 2, 4
"""How many times as many a layer may have."""
SCALE = 0.9
"""What a weight of root mean square 1 becomes before it is rounded to the lattice."""


@system(title="Best", paper="this package")
def best(
    bits: int = 2,
    ridge: float = 0.1,
    passes: int | None = None,
    refits: int = 2,
    rescale: bool = True,
    level: bool = True,
    spare: float = 2.0,
    seed: int = 0,
    compensate: float = 0.25,
    allocate: bool = True,
) -> Recipe:
    """At 2 bits the lattice codebook of QuIP# between balanced rotations, their vectors fitted to the layer's outputs;
    at 3 and 4 bits codebooks of VPTQ, fitted likewise, with channels that stand out folded back among the others.

    bits             bits of a weight: 2, 3 or 4
    ridge            share of the mean of the Hessian's diagonal that is added to it; above 2 bits, of each entry
    passes           of coordinate descent over the codes after each rounding; none: 10, and 3 above 2 bits
    refits           how often the vectors, or the codebooks, are fitted to the codes, which are found anew in between
    rescale          balance the columns of the weight against the inputs before the rotations; at 2 bits
    level            give the rows of the weight one size before the rotations; at 2 bits
    spare            how many times larger or smaller than most a channel may be before it is folded; above 2 bits
    seed             of the signs, or of k-means
    compensate       share of the earlier layers' error, 0 to 1, that each weight makes up for before it is rounded
    allocate         give layers larger or smaller codebooks by sensitivity, at the same bits in all; above 2 bits
    """
    if bits not in (2, 3, 4) or isinstance(bits, bool):
        raise RecipeError("bits", bits, "2, 3 or 4", "at more bits gptq loses nothing that shows")
    solver: Solver
    allocation = None
    if bits == 2:
        scheme = Scheme(E8p(bits), "tensor", scale_dtype="f32")
        solver = Ldlq(
            incoherence="hadamard",
            rescale=rescale,
            level=level,
            passes=10 if passes is None else passes,
            refits=refits,
            spread=1 / SCALE,
            ridge=ridge,
            damp=0.0,
            seed=seed,
        )
    else:
        scheme = _codebook(COUNTS[bits])
        others = tuple(_codebook(int(COUNTS[bits] * factor)) for factor in FACTORS)
        allocation = Allocation(others) if allocate else None
        descents = 3 if passes is None else passes
        solver = Vptq(passes=descents, loose=ridge, refits=refits, tune=0, seed=seed)
    return Recipe(
        name="best",
        weights=scheme,
        transforms=() if bits == 2 else (Balance(spare=spare),),
        solver=solver,
        propagate="quantized",
        true_sequential=True,
        compensate=compensate,
        allocate=allocation,
        allow_unfused=allocation is not None,  # a codebook belongs to one linear: there is nothing to fuse
    )


def _codebook(count: int) -> Scheme:
    return Scheme(Vectors(2, count), "tensor", scale_dtype="f16")
