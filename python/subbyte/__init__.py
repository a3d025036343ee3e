"""Published low-bit quantization systems on one set of fast kernels.

    import subbyte
    from subbyte.systems import gptq

    subbyte.quantize("path/to/model", gptq(bits=4, group_size=128), out="path/to/quantized")
    model = subbyte.load("path/to/quantized")

The floors of the house; imports go down only, and importing this package loads none of them:

    cli -> pipeline | evaluate -> checkpoint -> systems -> recipe -> transforms | solvers -> outliers -> calibration
        -> anatomy | modules -> tensors -> schemes -> kernels -> cuda -> _rust
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subbyte.checkpoint import inspect as inspect
    from subbyte.checkpoint import load as load
    from subbyte.pipeline import quantize as quantize
    from subbyte.recipe import Recipe as Recipe
    from subbyte.schemes import Scheme as Scheme

__version__ = "0.1.0"
__all__ = ["Recipe", "Scheme", "__version__", "inspect", "load", "quantize"]

# Where the public names live. They are found on first use, so that `import subbyte` stays light and needs no torch.
_HOMES = {
    "Recipe": "subbyte.recipe",
    "Scheme": "subbyte.schemes",
    "inspect": "subbyte.checkpoint",
    "load": "subbyte.checkpoint",
    "quantize": "subbyte.pipeline",
}
_ROOMS = ("calibration", "checkpoint", "errors", "evaluate", "kernels", "pipeline", "schemes", "systems", "tensors")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"subbyte.{name}")
    raise AttributeError(f"module 'subbyte' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
