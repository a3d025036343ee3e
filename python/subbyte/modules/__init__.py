"""What runs: the quantized linear, one whose floats learn, the unfused mixture of experts, and models built without
their weights."""

from __future__ import annotations

from subbyte.modules.moe import MoE
from subbyte.modules.quantized_linear import QuantizedLinear
from subbyte.modules.skeleton import linear_names, materialise, release, replace_linear, skeleton, submodule
from subbyte.modules.trainable_linear import TrainableLinear

__all__ = [
    "MoE",
    "QuantizedLinear",
    "TrainableLinear",
    "linear_names",
    "materialise",
    "release",
    "replace_linear",
    "skeleton",
    "submodule",
]
