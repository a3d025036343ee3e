"""A low-pass filter whose 13 coefficients have 6 bits: the smallest largest ripple, by `kernels.min_max`.

    python examples/fir_filter.py

The problem is min_x max_k |a_k x - b_k| with x on a grid (Ahmed et al., 2025): rows of A are the cosines of a
linear-phase filter, at frequencies of the pass band (up to 0.4 of half the sampling rate; b = 1) and the
stop band (from 4/7; b = 0).
"""

import numpy as np

from subbyte import kernels

ORDER, BITS = 12, 6
edges = np.concatenate([np.linspace(0, 0.4, 96), np.linspace(4 / 7, 1, 96)])
a = np.cos(np.pi * edges[:, None] * np.arange(ORDER // 2 + 1)) * np.where(np.arange(ORDER // 2 + 1) > 0, 2, 1)
b = (edges <= 0.4).astype(float)

step = 2.0 ** (1 - BITS)
levels = step * np.arange(-(2 ** (BITS - 1)), 2 ** (BITS - 1))
exact = np.linalg.lstsq(a, b)[0]
start = np.abs(levels - exact[:, None]).argmin(1)
codes, largest, _ = kernels.min_max(
    a.astype(np.float32),
    b[None].astype(np.float32),
    levels[None].astype(np.float32),
    start[None].astype(np.uint8),
    iterations=2000,
    guard=False,
    moves="both",
    share=0.3,
)
rounded, found = (float(np.abs(a @ levels[c] - b).max()) for c in (start, codes[0]))
print(f"ripple: {np.abs(a @ exact - b).max():.4f} by least squares, {rounded:.4f} rounded, {found:.4f} searched")
