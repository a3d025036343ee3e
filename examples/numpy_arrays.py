"""Kernels on NumPy arrays: a weight to 4-bit codes in groups of 128, and a product that runs on them.

    python examples/numpy_arrays.py

Nothing but NumPy is imported. Every kernel takes any array that speaks DLPack and gives its own kind back.
"""

import numpy as np

from subbyte import kernels

random = np.random.default_rng(0)
weight = random.standard_normal((4096, 1024), np.float32)
x = random.standard_normal((8, 1024), np.float32)

scale, zero = kernels.fit_affine(weight, 4, group=128, symmetric=False)
codes = kernels.quantize_affine(weight, scale, zero, 4, group=128)
words = kernels.pack(codes, 4)
y = kernels.wna16(x, words, scale, zero, 4, group=128)

exact = x @ weight.T
print(f"{weight.nbytes / 2**20:.0f} MiB of floats as {words.nbytes / 2**20:.0f} MiB of codes")
print(f"relative error of the product: {np.linalg.norm(y - exact) / np.linalg.norm(exact):.3f}")
