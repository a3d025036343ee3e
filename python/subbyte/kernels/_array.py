"""Whose arrays these are, and how their results go back.

Frameworks are recognised without importing them: whoever passes an array of one has imported it already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from subbyte import _rust
from subbyte.errors import DeviceError, StrideError
from subbyte.kernels._machine import current

#: Anything that speaks DLPack; a result is of the framework of the arguments.
Array: TypeAlias = Any

_CPU = (1, 3, 11)  # DLPack: host memory, and host memory pinned by CUDA or ROCm
_CUDA = (2, 13)  # DLPack: device memory, and managed memory
#: Kernels that subbyte.cuda has, too.
ON_CUDA = frozenset(
    {
        "block_scaled",
        "block_scaled_pair",
        "codebook_gemm",
        "csr",
        "fp8",
        "fp8_grouped",
        "hadamard",
        "hadamard_quantize",
        "int4_fp8",
        "lookup",
        "norm_quantize",
        "quantize_tokens",
        "w4a4",
        "w4a8",
        "w8a8",
        "wna16",
        "wna16_grouped",
    }
)
#: Kernels that write to their first array.
IN_PLACE = frozenset({"accumulate_gram"})


def call(kernel: str, arrays: Mapping[str, Array], **options: object) -> Any:
    """Calls a kernel by its name; its results are of the framework of `arrays`, of which some may be None."""
    given = {name: array for name, array in arrays.items() if array is not None}
    if {*map(type, given.values())} == {np.ndarray}:  # the rest would take as long as a small kernel
        return bring_back(run(kernel, **arrays, **options), np.from_dlpack)
    if _is_any("torch", "Tensor", given):
        from subbyte.kernels import _torch

        return _torch.call(kernel, arrays, given, options)
    kind = _one_framework(given)
    if kind != "NumPy" and _on_cuda(kernel, given):
        from subbyte import cuda

        return getattr(cuda, kernel)(**arrays, **options)
    if kind == "JAX" and kernel in IN_PLACE:
        expected = "a writable array"
        raise StrideError(next(iter(given)), "an immutable JAX array", expected, "use NumPy for it")
    return bring_back(run(kernel, **arrays, **options), _FROM_DLPACK.get(kind, np.from_dlpack))


def run(kernel: str, *args: object, **options: object) -> Any:
    """The binding of that name, on the machine that is forced here."""
    return getattr(_rust, kernel)(*args, **options, on=current())


def bring_back(results: Any, from_dlpack: Callable[[Any], Array]) -> Any:
    """Hands the memory of results over to a framework; it is shared, not copied, if the framework allows."""
    if results is None:
        return None
    if isinstance(results, tuple):
        return tuple(map(from_dlpack, results))
    return from_dlpack(results)


def framework(array: Array) -> str:
    """Whose array it is; whoever is not known gets NumPy arrays back."""
    if isinstance(array, np.ndarray):
        return "NumPy"
    for module, name, title in (("jax", "Array", "JAX"), ("cupy", "ndarray", "CuPy")):
        if _is_any(module, name, {"": array}):
            return title
    return type(array).__name__


def refuse_mixture(kinds: Mapping[str, str]) -> None:
    """Raises DeviceError unless all arguments are of one kind."""
    (first, kind), *others = kinds.items()
    for name, other in others:
        if other != kind:
            raise DeviceError(name, other, f"{kind}, as {first}", "convert one of them first")


def refuse_device(kernel: str, name: str, device: str) -> DeviceError:
    """The error for a device on which there is no such kernel."""
    where = "the CPU or a CUDA device" if kernel in ON_CUDA else "the CPU"
    return DeviceError(f"{kernel}({name})", f"an array on {device}", f"an array on {where}", "move it there first")


def _is_any(module: str, name: str, arrays: Mapping[str, Array]) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and any(isinstance(array, kind) for array in arrays.values())


def _one_framework(arrays: Mapping[str, Array]) -> str:
    # What is no array at all is for the binding to refuse: it knows what the argument should have been.
    kinds = {name: framework(array) for name, array in arrays.items() if hasattr(array, "__dlpack__")}
    if not kinds:
        return "NumPy"
    refuse_mixture(kinds)
    return next(iter(kinds.values()))


def _on_cuda(kernel: str, arrays: Mapping[str, Array]) -> bool:
    """Whether all arrays lie on a CUDA device that has this kernel."""
    asked = {name: array.__dlpack_device__() for name, array in arrays.items() if hasattr(array, "__dlpack_device__")}
    refuse_mixture({name: f"DLPack device {int(kind)}:{number}" for name, (kind, number) in asked.items()})
    for name, (kind, number) in asked.items():
        if kind in _CPU:
            return False
        if kind not in _CUDA or kernel not in ON_CUDA:
            raise refuse_device(kernel, name, f"DLPack device {int(kind)}:{number}")
    return bool(asked)


def _jax_from_dlpack(result: Any) -> Array:
    from jax.dlpack import from_dlpack

    return from_dlpack(result)


def _cupy_from_dlpack(result: Any) -> Array:
    return sys.modules["cupy"].from_dlpack(result)


_FROM_DLPACK: Mapping[str, Callable[[Any], Array]] = {
    "JAX": _jax_from_dlpack,
    "CuPy": _cupy_from_dlpack,
}
