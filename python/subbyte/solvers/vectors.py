"""The diagonals beside the rotations of a rounded weight, fitted to what the codes left."""

from __future__ import annotations

import numpy as np

from subbyte.solvers.base import Floats
from subbyte.tensors import Rotated

__all__ = ["fit_vectors"]

RIDGE = 1e-3
"""Share of its diagonal that is added to a matrix before it is solved with: what was hardly seen stays where it is."""


def fit_vectors(weight: Floats, tensor: Rotated, moments: Floats, turns: int = 4) -> Rotated:
    """`tensor` with the vectors of both rotations fitted by least squares, its codes as they are.

    With P [O, I] what the codes stand for between rotations without vectors, minimises
    tr((W - diag(v) P diag(u)) H (W - diag(v) P diag(u))^T) over v, a row at a time, and u, one system of I unknowns, by
    turns: the layer's share of what QuIP# trains (Tseng et al., 2024, section 5), at no bit more.

    weight   [O, I] f32
    moments  [I, I] f32: H, not all zero
    """
    metric = moments.copy()
    metric[np.diag_indices_from(metric)] *= np.float32(1 + RIDGE)
    plain = tensor.bare().dequantize()
    u, v = tensor.inputs.scales(), tensor.outputs.scales()
    seen = weight @ metric
    for _ in range(turns):
        product = plain * u
        above, below = (seen * product).sum(1), ((product @ metric) * product).sum(1)
        v = np.divide(above, below, out=v.copy(), where=below > 0)
        product = plain * v[:, None]
        system = metric * (product.T @ product)
        stay = np.float32(RIDGE) * system.diagonal()
        system[np.diag_indices_from(system)] += np.where(stay > 0, stay, np.float32(1))
        u = np.linalg.solve(system, (product * seen).sum(0) + stay * u + np.where(stay > 0, np.float32(0), u))
    return tensor.refitted({"inputs": u, "outputs": v})
