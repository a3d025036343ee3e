"""Kernels on JAX arrays, which come and go without a copy: rotate, quantize to MXFP4, and back.

python examples/jax_arrays.py
"""

import jax.numpy as jnp
import numpy as np

from subbyte import kernels

x = jnp.asarray(np.random.default_rng(0).standard_normal((64, 1024), np.float32))
x = x.at[:, 5].set(40.0)  # a channel of outliers, which a rotation spreads over all


def through_mxfp4(values: jnp.ndarray) -> jnp.ndarray:
    """The values after rounding to blocks of 32 E2M1 numbers with a power of two for scale."""
    codes, scale = kernels.quantize_block(values, "e2m1")
    return kernels.dequantize_block(codes, scale, "e2m1")


plain = through_mxfp4(x)
turned = kernels.hadamard(through_mxfp4(kernels.hadamard(x)), transpose=True)
size = float(jnp.linalg.norm(x.at[:, 5].set(0.0)))
for name, found in (("plain", plain), ("rotated", turned)):
    print(f"{name}: error {float(jnp.linalg.norm(found - x)) / size:.3f} of what is no outlier")
