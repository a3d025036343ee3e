"""VPTQ (Liu et al., 2024, arXiv 2409.17066): vectors of neighbouring outputs out of codebooks, column after column.

v, k = log2 K                         -> `vector_length`, `centroids`; none: as many as make `bits` bits a weight
C_r, K_r (section 3.3, residual)      -> `residual_centroids`: a second stage, trained on what error feedback leaves to
  the first (the released code's r_n; algorithm 2 has W - W'), codes then chosen anew with both
H (section 3.1), Hessians of the code -> the solver's moments; the code stores covariance and mean and adds them again
channel-independent optimisation, 3.2 -> `solvers.Vptq`, `kernels.gptq_codebook`, in the Cholesky form of the code
Hessian-weighted centroids, eq. 11    -> `weighted`: k-means with the Hessian's diagonal as weights, seeded
enable_perm                           -> `permute`; without outliers and groups the codes go back to their columns
outliers N %, v_0, K_0 (section 3.3)  -> `outliers`, `outlier_vector_length`, `outlier_centroids` (0: 16-bit floats)
group_num                             -> `groups`: runs of columns with codebooks of their own
enable_norm                           -> `normalize`; `norm_hessian` "scaled" weighs W' by diag(s) H diag(s), which its
  errors ask for, "unscaled" by H, as released
sigma_reg, percdamp, both 0.01        -> the solver's ridge and damp
layer-wise fine-tuning (3.4)          -> `tune_iterations`, `tune_rate`: Adam on the codebooks, scales and biases; every
  step sees all of the calibration inputs, which their Gram matrix allows
end-to-end fine-tuning (3.4)          -> `model_epochs`, `Recipe.tune_model`: these floats of all layers together, and
  the norms, towards the float model's predictions; off, as its code was never released
Bits: log2(K)/v + log2(K_r)/v, and 16 (v_0 K_0 + v G (K + K_r)) for the codebooks of a layer, 16 for each input of an
order, 32 with norm.
Matrices of 256 columns take short vectors, as codebooks weigh 16 times as much as at 4096: on `../shared/models/llama`
v 3, K 64 is ahead of GPTQ's 2 bits at fewer true bits (2.04 against 2.14); v 6, K 1024 is not, at 2.55.
Left out: the Hessians of the float model, gathered offline; those of the quantized model so far take their place.
"""

from __future__ import annotations

from typing import Literal

from subbyte.errors import RecipeError
from subbyte.recipe import Recipe, Training
from subbyte.schemes import Scheme, Vectors
from subbyte.solvers import Vptq
from subbyte.systems.registry import system

__all__ = ["vptq"]

WIDEST = 16
"""Bits of a codeword's number."""


@system(title="VPTQ", paper="arXiv 2409.17066")
def vptq(
    bits: int = 2,
    vector_length: int = 4,
    centroids: int | None = None,
    residual_centroids: int | None = None,
    groups: int = 1,
    outliers: float = 0.0,
    outlier_vector_length: int = 4,
    outlier_centroids: int = 256,
    permute: bool = True,
    normalize: bool = False,
    norm_hessian: Literal["scaled", "unscaled"] = "scaled",
    weighted: bool = True,
    kmeans_iterations: int = 100,
    kmeans_init: Literal["plusplus", "random"] = "plusplus",
    tune_iterations: int = 100,
    tune_rate: float = 1e-4,
    seed: int = 0,
    true_sequential: bool = True,
    model_epochs: int = 0,
) -> Recipe:
    """Vectors of a few outputs become codewords of codebooks that the layer's Hessian weighs, with error feedback.

    bits                   bits of a weight, 2 to 4, where centroids is none: all of a vector's in one stage up to 12,
                           else half of them in each of two
    vector_length          outputs that one code stands for; the paper has 6 to 12, for matrices 4096 wide and wider
    centroids              codewords of the first stage, a power of two up to 65536; none: as bits says
    residual_centroids     codewords of a second stage; none: as bits says, 0: no second stage
    groups                 groups of columns with codebooks of their own
    outliers               percent of the columns, those with the largest activations, that get their own codebook
    outlier_vector_length  outputs that one code of an outlier stands for
    outlier_centroids      codewords for the outliers; 0: they stay 16-bit floats
    permute                take the columns in the order of falling activations
    normalize              put each column between 0 and 1, with a scale and a bias
    norm_hessian           scaled: weigh normalised columns by what their errors cost; unscaled: as released
    weighted               weigh vectors by the activations of their column when codebooks are sought
    kmeans_iterations      iterations of k-means at most
    kmeans_init            plusplus: rows far from each other; random: any rows, as released
    tune_iterations        steps of layer-wise tuning of codebooks, scales and biases; 0: none
    tune_rate              learning rate of these steps
    seed                   of k-means' draws
    true_sequential        calibrate each stage of a block (q/k/v, output, gate/up, down) on those before it, quantized
    model_epochs           of training all layers' floats together, end to end
    """
    if outliers and not permute:
        raise RecipeError("permute", False, "true with outliers", "the first columns are outliers only in that order")
    if isinstance(bits, bool) or bits not in (2, 3, 4):
        raise RecipeError("bits", bits, "2, 3 or 4", "codebooks for more are larger than what they save")
    first, second = _stages(bits * vector_length) if centroids is None else (centroids, 0)
    apart = (outlier_vector_length, outlier_centroids) if outliers and outlier_centroids else (0, 0)
    element = Vectors(
        vector_length,
        first,
        second if residual_centroids is None else residual_centroids,
        groups,
        outliers,
        *apart,
        norm=normalize,
    )
    return Recipe(
        name="vptq",
        weights=Scheme(element, "tensor", scale_dtype="f16"),
        solver=Vptq(
            permute,
            norm_hessian,
            weighted,
            kmeans_iterations,
            init=kmeans_init,
            tune=tune_iterations,
            rate=tune_rate,
            seed=seed,
        ),
        propagate="quantized",
        true_sequential=true_sequential,
        tune_model=Training(model_epochs, tune_rate, tune_rate / 10, batch=1) if model_epochs else None,
    )


def _stages(width: int) -> tuple[int, int]:
    """Codewords of both stages for codes of so many bits."""
    if not 1 <= width <= 2 * WIDEST:
        raise RecipeError(
            "vector_length", f"vectors of {width} bits", f"1 to {2 * WIDEST}", "fewer bits, or shorter vectors"
        )
    first = width if width <= 12 else -(-width // 2)
    return 1 << first, 1 << (width - first) if width > first else 0
