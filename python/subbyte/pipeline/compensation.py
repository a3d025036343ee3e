"""The weight that answers quantized inputs as the float weight answers the float model's."""

from __future__ import annotations

import torch

from subbyte.calibration import Statistics

__all__ = ["compensated"]

RIDGE = 0.1
"""Share of its diagonal that is added to X X^T: what the calibration text hardly shows is left alone."""


def compensated(weight: torch.Tensor, seen: Statistics, share: float) -> torch.Tensor:
    """The weight [O, C] f32 moved towards what undoes the error that its inputs bring along.

    With inputs X of the quantized model so far and Y of the float model, the minimum of |V X - W Y|^2 is
    W + W (Y - X) X^T (X X^T)^-1. `share` of that step is taken: the whole of it fits the calibration text, and other
    text less (QEP: Arai and Ichikawa, 2025, arXiv 2504.09629, section 5; GPTAQ: Li et al., 2025, arXiv 2504.02692,
    takes it inside the column loop). X X^T is `seen.gram`, (Y - X) X^T `seen.drift`.
    """
    if seen.drift is None or seen.gram is None or not seen.tokens:
        return weight
    moments = seen.gram.clone()
    diagonal = moments.diagonal()
    diagonal *= 1 + RIDGE
    diagonal[diagonal == 0] = 1  # an input that is never there: its row and column are zero
    factor = torch.linalg.cholesky(moments)
    return weight + share * torch.cholesky_solve((weight @ seen.drift).T, factor).T.contiguous()
