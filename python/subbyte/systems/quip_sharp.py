"""QuIP# (Tseng et al., 2024, arXiv 2402.04396): Hadamard rotations and a lattice codebook of eight weights a code.

RHT, S_U and S_V (section 3)           -> `tensors.Rotated` with "hadamard": both transforms stay at run time; where
  no Hadamard matrix is known, Hartley's of the odd part in the place of the paper's Fourier transform
E8P (section 4.2), RVQ (4.3)           -> `schemes.E8p`, `kernels.e8p_encode`: 2, 3 and 4 bits by codebook
BlockLDLQ, equation 4                  -> `solvers.Ldlq`, `kernels.ldlq` in blocks of eight columns
Wscale = rms / opt_scale               -> 1 / `scale_override`; the codebooks' optima are 1.03, 0.98 and 1.03, of which
  the released instructions lower the first to 0.9, our default: what LDLQ rounds varies more than the weight
quip_tune_iters                        -> `tune_iterations`, passes of block coordinate descent
sigma_reg 0.01                         -> the solver's ridge, of a Hessian with a mean diagonal of 1; no further damping
scaleWH (rescale_WH)                   -> `rescale`, off as released
ablation: RHT and a scalar grid        -> `codebook` integers, from -2.4 to 2.4 root mean squares as QuIP's
fine-tuning within blocks (section 5)  -> `block_epochs`, `Recipe.tune_blocks`: S_U, S_V as real vectors, norms, biases
fine-tuning end to end (section 5)     -> `model_epochs`, `Recipe.tune_model`, towards the float model's softmax
Left out: fusing q/k/v and gate/up before rounding (each has its own rotation here), the low-rank correction that the
release dropped; in fine-tuning the weights that are not rounded yet, for which a block would be trained four times, and
the head. The Hessian is gathered on the quantized model so far, not offline on the float one.
"""

from __future__ import annotations

from typing import Literal

from subbyte.errors import RecipeError
from subbyte.recipe import Recipe, Training
from subbyte.schemes import E8p, Scheme
from subbyte.solvers import Ldlq
from subbyte.systems.registry import system, weight_scheme

__all__ = ["quip_sharp"]

SCALES = {2: 0.9, 3: 0.98, 4: 1.03}


@system(title="QuIP#", paper="arXiv 2402.04396")
def quip_sharp(
    bits: int = 2,
    codebook: Literal["e8p", "integers"] = "e8p",
    incoherence: Literal["hadamard", "kronecker"] = "hadamard",
    rescale: bool = False,
    tune_iterations: int = 10,
    scale_override: float | None = None,
    seed: int = 0,
    true_sequential: bool = True,
    block_epochs: int = 0,
    model_epochs: int = 0,
) -> Recipe:
    """Eight weights at a time become a point of the E8 lattice, between Hadamard transforms that stay at run time.

    bits             bits of a weight: 2, 3 or 4; for integers 1 to 8
    codebook         e8p, or integers: one scalar grid, to see what the lattice is worth
    incoherence      hadamard (random signs and a Hadamard matrix; Hartley's for widths that have none), or kronecker
    rescale          balance the columns of the weight against the inputs before the rotations
    tune_iterations  passes of block coordinate descent after the first rounding
    scale_override   what a weight of root mean square 1 becomes before it is rounded; none: 0.9, 0.98 or 1.03 by bits
    seed             of the signs
    true_sequential  calibrate each stage of a block (q/k/v, output, gate/up, down) on the quantized ones before it
    block_epochs     of training the vectors and norms of each block towards its float outputs; the paper has 5
    model_epochs     of training those of all blocks towards the float model's predictions; the paper has 8
    """
    if scale_override is not None and not scale_override > 0:
        raise RecipeError("scale_override", scale_override, "a positive number", "0.9 is the usual one at two bits")
    if codebook == "integers":
        element = weight_scheme(bits, -1, symmetric=False).element
        scheme = Scheme(element, "tensor", symmetric=False, float_zero=True, scale_dtype="f32")
        spread = 2.4 if scale_override is None else 2.4 / scale_override
    else:
        if bits not in SCALES or isinstance(bits, bool):
            raise RecipeError("bits", bits, "2, 3 or 4", "other widths have codebook integers")
        scheme = Scheme(E8p(bits), "tensor", scale_dtype="f32")
        spread = 1 / (SCALES[bits] if scale_override is None else scale_override)
    return Recipe(
        name="quip_sharp",
        weights=scheme,
        solver=Ldlq(
            incoherence=incoherence, rescale=rescale, passes=tune_iterations, spread=spread, damp=0.0, seed=seed
        ),
        propagate="quantized",
        true_sequential=true_sequential,
        tune_blocks=Training(block_epochs, 5e-4, 5e-5, batch=8, held_out=1 / 3) if block_epochs else None,
        tune_model=Training(model_epochs, 1e-4, 1e-5, batch=1, held_out=1 / 3) if model_epochs else None,
    )
