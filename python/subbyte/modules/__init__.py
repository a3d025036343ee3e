"""What runs: the quantized linear, the unfused mixture of experts, and models built without their weights."""

from __future__ import annotations

from subbyte.modules.moe import MoE
from subbyte.modules.quantized_linear import QuantizedLinear
from subbyte.modules.skeleton import linear_names, materialise, release, replace_linear, skeleton, submodule

__all__ = [
    "MoE",
    "QuantizedLinear",
    "linear_names",
    "materialise",
    "release",
    "replace_linear",
    "skeleton",
    "submodule",
]
