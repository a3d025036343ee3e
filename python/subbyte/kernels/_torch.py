"""The kernels as torch operators, `torch.ops.subbyte.*`: the only file that registers any.

Imported at the first torch tensor, or by `import subbyte.torch`. An operator takes what `subbyte.kernels` documents;
its fake implementation knows the shapes, so that `torch.compile` and `torch.export` trace through it. None is
differentiable: `subbyte.kernels` detaches what it is given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from subbyte import kernels
from subbyte.errors import DtypeError
from subbyte.kernels._array import IN_PLACE, ON_CUDA, bring_back, framework, refuse_device, refuse_mixture, run

_WIDE = frozenset({"bf16", "f16"})

# Kept for the life of the process: an operator disappears with the library that defined it.
_torch_library: Any = torch.library  # its methods carry no types
_library = _torch_library.Library("subbyte", "DEF")


def call(kernel: str, arrays: Mapping[str, Any], given: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Calls an operator, once it is clear that all arrays are tensors on one device that has it."""
    if _plain(given.values()):
        return bring_back(run(kernel, **arrays, **options), from_dlpack)
    if not all(isinstance(array, Tensor) for array in given.values()):
        for name, array in given.items():
            if not hasattr(array, "__dlpack__"):
                raise DtypeError(
                    name, type(array).__name__, "a torch tensor", "wrap it by torch.tensor(..., dtype=...)"
                )
        refuse_mixture({name: "torch" if isinstance(a, Tensor) else framework(a) for name, a in given.items()})
    device = next(iter(given.values())).device
    if any(tensor.device != device for tensor in given.values()):
        refuse_mixture({name: f"torch device {tensor.device}" for name, tensor in given.items()})
    if device.type not in ("cpu", "meta") and (device.type, kernel) not in _ELSEWHERE:
        raise refuse_device(kernel, next(iter(given)), str(device))
    detached = {name: tensor.detach() if tensor.requires_grad else tensor for name, tensor in given.items()}
    return getattr(torch.ops.subbyte, kernel).default(**{**arrays, **detached}, **options)


def _plain(tensors: Iterable[Any]) -> bool:
    """Whether the operator's way through torch's dispatcher, longer than a small kernel takes, would change nothing:
    every tensor is torch's own, on the CPU and without gradient, nothing traces, no mode or transform is active.
    """
    for tensor in tensors:
        if type(tensor) is not Tensor or not tensor.is_cpu or tensor.requires_grad:
            return False
    return (
        not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


_TYPES = {"Array": "Tensor", "int": "SymInt", "float": "float", "bool": "bool", "str": "str"}


def _schema(kernel: str, signature: inspect.Signature) -> str:
    """What torch calls an operator's signature."""
    parameters: list[str] = []
    for name, parameter in signature.parameters.items():
        kind, _, optional = parameter.annotation.partition(" | ")
        written = "(a!)" if kernel in IN_PLACE and not parameters else ""
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parameters.append(f"{_TYPES[kind]}{written}{'?' if optional else ''} {name}{default}")
    results = ", ".join("Tensor" for _ in range(signature.return_annotation.count("Array")))
    return f"{kernel}({', '.join(parameters)}) -> ({results})"


def _fake(shapes: Callable[..., Any]) -> None:
    """Defines the operator of a kernel. It takes what that documents in `subbyte.kernels`, its implementation is the
    binding, and the fake one the decorated function, of the same name, which takes those arguments that it asks for.
    """
    kernel, asked = shapes.__name__, inspect.signature(shapes).parameters
    signature = inspect.signature(getattr(kernels, kernel))

    def on_cpu(*args: Any, **options: Any) -> Any:
        plain = [arg.detach() if isinstance(arg, Tensor) and arg.requires_grad else arg for arg in args]
        return bring_back(run(kernel, *plain, **options), from_dlpack)

    def fake(*args: Any, **options: Any) -> Any:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        return shapes(**{name: bound.arguments[name] for name in asked})

    _library.define(_schema(kernel, signature))
    _library.impl(kernel, on_cpu, "CPU")
    _torch_library.register_fake(f"subbyte::{kernel}", fake, lib=_library)


def _groups(cols: int, group: int) -> int:
    return 1 if group == -1 else cols // group


@_fake
def pack(codes: Tensor, bits: int) -> Tensor:
    rows, cols = codes.shape
    return codes.new_empty((rows, (cols * bits + 31) // 32), dtype=torch.int32)


@_fake
def unpack(words: Tensor, cols: int) -> Tensor:
    return words.new_empty((words.shape[0], cols), dtype=torch.uint8)


@_fake
def encode_minifloat(x: Tensor, format: str) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.uint16 if format in _WIDE else torch.uint8)


@_fake
def decode_minifloat(codes: Tensor) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


@_fake
def quantize_block(x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    rows, cols = x.shape
    return x.new_empty(x.shape, dtype=torch.uint8), x.new_empty((rows, cols // block), dtype=torch.uint8)


@_fake
def dequantize_block(codes: Tensor) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


@_fake
def fit_affine(x: Tensor, group: int) -> tuple[Tensor, Tensor]:
    shape = x.shape[0], _groups(x.shape[1], group)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.uint8)


@_fake
def quantize_affine(x: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.uint8)


@_fake
def quantize_symmetric(x: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.int8)


@_fake
def dequantize_affine(codes: Tensor) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


@_fake
def quantize_table(x: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.uint8)


@_fake
def dequantize_table(codes: Tensor) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


def _token_codes(x: Tensor, format: str) -> tuple[Tensor, Tensor]:
    dtype = torch.int8 if format == "int8" else torch.uint8
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape[:1], dtype=torch.float32)


@_fake
def quantize_tokens(x: Tensor, format: str) -> tuple[Tensor, Tensor]:
    return _token_codes(x, format)


@_fake
def norm_quantize(x: Tensor, format: str) -> tuple[Tensor, Tensor]:
    return _token_codes(x, format)


@_fake
def hadamard_quantize(x: Tensor, format: str) -> tuple[Tensor, Tensor]:
    return _token_codes(x, format)


@_fake
def search_clip(weight: Tensor, group: int) -> Tensor:
    return weight.new_empty((weight.shape[0], _groups(weight.shape[1], group)))


@_fake
def hadamard(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@_fake
def accumulate_gram() -> None:
    return None


@_fake
def coordinate_descent(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    codes = weight.new_empty(weight.shape, dtype=torch.uint8)
    return codes, weight.new_empty(weight.shape[:1]), weight.new_empty(weight.shape)


@_fake
def bilevel(weight: Tensor, group: int, run: int) -> tuple[Tensor, ...]:
    rows, cols = weight.shape
    count = _groups(cols, group)
    codes = [weight.new_empty(shape, dtype=torch.uint8) for shape in ((rows, cols), (rows, count), (rows, count))]
    floats = [weight.new_empty((rows, count)) for _ in range(2)]
    grids = [weight.new_empty((rows // run, count, 2)) for _ in range(2)]
    mask = weight.new_empty(weight.shape, dtype=torch.uint8)
    last = weight.new_empty(weight.shape), weight.new_empty((rows,))
    return (codes[0], *floats, *codes[1:], *grids, mask, *last)


@_fake
def half_quadratic(weight: Tensor, group: int, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grids = weight.shape[0], _groups(weight.shape[1], group)
    codes = weight.new_empty(weight.shape, dtype=torch.uint8)
    return codes, weight.new_empty(grids), weight.new_empty(grids), weight.new_empty((steps,))


@_fake
def inverse_factor(hessian: Tensor) -> Tensor:
    return hessian.new_empty(hessian.shape)


@_fake
def gptq(weight: Tensor, group: int, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, cols = weight.shape
    grids = (rows, _groups(cols, group)) if scale is None else scale.shape
    codes, zeros = weight.new_empty(weight.shape, dtype=torch.uint8), weight.new_empty(grids, dtype=torch.uint8)
    return codes, weight.new_empty(grids), zeros, weight.new_empty(weight.shape), weight.new_empty((rows,))


@_fake
def gptq_codebook(weight: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, cols = weight.shape
    codes = weight.new_empty((-(-rows // codebook.shape[2]), cols), dtype=torch.int32)
    return codes, weight.new_empty(weight.shape), weight.new_empty((rows,))


@_fake
def codebook_descent(codes: Tensor) -> Tensor:
    return codes.new_empty(codes.shape)


@_fake
def wna16(x: Tensor, words: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], words.shape[0]))


@_fake
def wna16_by_input(x: Tensor, words: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], words.shape[0]))


@_fake
def wna16_grouped(x: Tensor, words: Tensor, rows: Tensor | None) -> Tensor:
    return x.new_empty(((x if rows is None else rows).shape[0], words.shape[1]))


@_fake
def lookup(x: Tensor, words: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], words.shape[0]))


@_fake
def w4a4(x: Tensor, words: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], words.shape[0]), dtype=torch.float32)


@_fake
def w4a8(x: Tensor, words: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], words.shape[0]), dtype=torch.float32)


@_fake
def w8a8(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float32)


@_fake
def fp8(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float32)


@_fake
def fp8_grouped(x: Tensor, weight: Tensor, rows: Tensor | None) -> Tensor:
    return x.new_empty(((x if rows is None else rows).shape[0], weight.shape[1]), dtype=torch.float32)


@_fake
def int4_fp8(x: Tensor, words: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], words.shape[0]), dtype=torch.float32)


@_fake
def block_scaled(x: Tensor, words: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], words.shape[0]))


@_fake
def block_scaled_pair(x: Tensor, words: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], words.shape[0]), dtype=torch.float32)


@_fake
def csr(x: Tensor, pointers: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], pointers.shape[0] - 1))


@_fake
def codebook_gemm(x: Tensor, words: Tensor, codebook: Tensor | None, outputs: int | None) -> Tensor:
    height = 1 if codebook is None else codebook.shape[2]
    return x.new_empty((*x.shape[:-1], words.shape[0] * height if outputs is None else outputs))


@_fake
def nearest_codeword(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[:1], dtype=torch.int32), x.new_empty(x.shape[:1])


@_fake
def kmeans(x: Tensor, k: int, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    index = x.new_empty(x.shape[:1], dtype=torch.int32)
    return x.new_empty((k, x.shape[1])), index, x.new_empty((iterations + 1,))


@_fake
def e8p_encode(x: Tensor, bits: int) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1] // 8), dtype=torch.uint16 if bits == 2 else torch.int32)


@_fake
def e8p_decode(codes: Tensor) -> Tensor:
    return codes.new_empty((codes.shape[0], codes.shape[1] * 8), dtype=torch.float32)


@_fake
def ldlq(weight: Tensor, codewords: str) -> tuple[Tensor, Tensor, Tensor]:
    rows, cols = weight.shape
    codes = weight.new_empty((rows, cols // (8 if codewords == "e8p" else 1)), dtype=torch.int32)
    return codes, weight.new_empty(weight.shape), weight.new_empty((rows,))


@_fake
def min_max(a: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows = codes.shape[0]
    return codes.new_empty(codes.shape), a.new_empty((rows, 2)), a.new_empty((rows, 2))


@_fake
def product_encode(x: Tensor, codebooks: Tensor) -> Tensor:
    dtype = torch.uint8 if codebooks.shape[1] <= 256 else torch.uint16
    return x.new_empty((x.shape[0], codebooks.shape[0]), dtype=dtype)


@_fake
def product_decode(codes: Tensor, codebooks: Tensor) -> Tensor:
    return codebooks.new_empty((codes.shape[0], codebooks.shape[0] * codebooks.shape[2]))


@_fake
def product_scan(tables: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    return tables.new_empty((tables.shape[0], rows)), tables.new_empty(tables.shape[:1])


def _on_cuda(kernel: str) -> Callable[..., Any]:
    """The function of that name in subbyte.cuda, which is imported only when a CUDA tensor comes."""

    def run_there(*args: Any) -> Any:
        from subbyte import cuda

        return getattr(cuda, kernel)(*args)

    return run_there


for _kernel in ON_CUDA:
    _library.impl(_kernel, _on_cuda(_kernel), "CUDA")
_ELSEWHERE = frozenset(("cuda", kernel) for kernel in ON_CUDA)
