"""The kernels as torch operators, `torch.ops.subbyte.*`: the only file that registers any.

Imported at the first torch tensor, or by `import subbyte.torch`. An operator takes what `subbyte.kernels` documents;
its fake implementation knows the shapes, so that `torch.compile` and `torch.export` trace through it. None is
differentiable: `subbyte.kernels` detaches what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from subbyte.errors import DtypeError
from subbyte.kernels._array import ON_CUDA, bring_back, framework, refuse_device, refuse_mixture, run

_GRID = "bool symmetric=True, bool narrow=False, bool forced_zero=True, float eps=0.0, str scale_dtype='f32'"
_SHRINK = "float norm=2.4, int shrink_grid=100, int shrink_steps=0"
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


def _operator(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Defines an operator whose fake implementation is the decorated function, and its CPU one the binding."""
    kernel = schema.partition("(")[0]

    def on_cpu(*args: Any, **options: Any) -> Any:
        plain = [arg.detach() if isinstance(arg, Tensor) and arg.requires_grad else arg for arg in args]
        return bring_back(run(kernel, *plain, **options), from_dlpack)

    def register(fake: Callable[..., Any]) -> Callable[..., Any]:
        _library.define(schema)
        _library.impl(kernel, on_cpu, "CPU")
        _torch_library.register_fake(f"subbyte::{kernel}", fake, lib=_library)
        return fake

    return register


def _groups(cols: int, group: int) -> int:
    return 1 if group == -1 else cols // group


@_operator("pack(Tensor codes, int bits, str order='dense') -> Tensor")
def _pack(codes: Tensor, bits: int, order: str = "dense") -> Tensor:
    rows, cols = codes.shape
    return codes.new_empty((rows, (cols * bits + 31) // 32), dtype=torch.int32)


@_operator("unpack(Tensor words, int bits, SymInt cols, str order='dense') -> Tensor")
def _unpack(words: Tensor, bits: int, cols: int, order: str = "dense") -> Tensor:
    return words.new_empty((words.shape[0], cols), dtype=torch.uint8)


@_operator("encode_minifloat(Tensor x, str format, bool saturate=True, str rounding='even', int seed=0) -> Tensor")
def _encode_minifloat(x: Tensor, format: str, *_: object) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.uint16 if format in _WIDE else torch.uint8)


@_operator("decode_minifloat(Tensor codes, str format) -> Tensor")
def _decode_minifloat(codes: Tensor, format: str) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


@_operator(
    "quantize_block(Tensor x, str element, int block=32, str scale_dtype='e8m0', str rule='floor', "
    "float tensor_scale=1.0) -> (Tensor, Tensor)"
)
def _quantize_block(x: Tensor, element: str, block: int = 32, *_: object) -> tuple[Tensor, Tensor]:
    rows, cols = x.shape
    return x.new_empty(x.shape, dtype=torch.uint8), x.new_empty((rows, cols // block), dtype=torch.uint8)


@_operator(
    "dequantize_block(Tensor codes, Tensor scale, str element, int block=32, str scale_dtype='e8m0', "
    "float tensor_scale=1.0) -> Tensor"
)
def _dequantize_block(codes: Tensor, *_: object) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


@_operator(f"fit_affine(Tensor x, int bits, SymInt group=-1, {_GRID}, {_SHRINK}) -> (Tensor, Tensor)")
def _fit_affine(x: Tensor, bits: int, group: int = -1, *_: object) -> tuple[Tensor, Tensor]:
    shape = x.shape[0], _groups(x.shape[1], group)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.uint8)


@_operator("quantize_affine(Tensor x, Tensor scale, Tensor zero, int bits, SymInt group=-1) -> Tensor")
def _quantize_affine(x: Tensor, scale: Tensor, zero: Tensor, bits: int, group: int = -1) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.uint8)


@_operator("quantize_symmetric(Tensor x, Tensor scale, int bits=8, SymInt group=-1, bool narrow=True) -> Tensor")
def _quantize_symmetric(x: Tensor, scale: Tensor, bits: int = 8, group: int = -1, narrow: bool = True) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.int8)


@_operator("dequantize_affine(Tensor codes, Tensor scale, Tensor zero, SymInt group=-1) -> Tensor")
def _dequantize_affine(codes: Tensor, scale: Tensor, zero: Tensor, group: int = -1) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


@_operator("quantize_table(Tensor x, Tensor scale, Tensor bounds, SymInt group=-1) -> Tensor")
def _quantize_table(x: Tensor, scale: Tensor, bounds: Tensor, group: int = -1) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.uint8)


@_operator("dequantize_table(Tensor codes, Tensor scale, Tensor table, SymInt group=-1) -> Tensor")
def _dequantize_table(codes: Tensor, scale: Tensor, table: Tensor, group: int = -1) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


def _token_codes(x: Tensor, format: str) -> tuple[Tensor, Tensor]:
    dtype = torch.int8 if format == "int8" else torch.uint8
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape[:1], dtype=torch.float32)


@_operator("quantize_tokens(Tensor x, float eps=1e-5, str format='int8') -> (Tensor, Tensor)")
def _quantize_tokens(x: Tensor, eps: float = 1e-5, format: str = "int8") -> tuple[Tensor, Tensor]:
    return _token_codes(x, format)


@_operator(
    "norm_quantize(Tensor x, Tensor weight, Tensor? bias=None, str norm='rms', float norm_eps=1e-5, float eps=1e-5, "
    "str format='int8') -> (Tensor, Tensor)"
)
def _norm_quantize(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    norm: str = "rms",
    norm_eps: float = 1e-5,
    eps: float = 1e-5,
    format: str = "int8",
) -> tuple[Tensor, Tensor]:
    return _token_codes(x, format)


@_operator(
    "hadamard_quantize(Tensor x, Tensor? signs=None, float? scale=None, bool transpose=False, float eps=1e-5, "
    "str format='int8') -> (Tensor, Tensor)"
)
def _hadamard_quantize(
    x: Tensor,
    signs: Tensor | None = None,
    scale: float | None = None,
    transpose: bool = False,
    eps: float = 1e-5,
    format: str = "int8",
) -> tuple[Tensor, Tensor]:
    return _token_codes(x, format)


@_operator(
    f"search_clip(Tensor weight, Tensor gram, int bits, SymInt group, {_GRID}, int shrink_grid=20, int shrink_steps=10)"
    " -> Tensor"
)
def _search_clip(weight: Tensor, gram: Tensor, bits: int, group: int, *_: object) -> Tensor:
    return weight.new_empty((weight.shape[0], _groups(weight.shape[1], group)))


@_operator("hadamard(Tensor x, float? scale=None, bool transpose=False) -> Tensor")
def _hadamard(x: Tensor, *_: object) -> Tensor:
    return x.new_empty(x.shape)


@_operator("accumulate_gram(Tensor(a!) gram, Tensor x) -> ()")
def _accumulate_gram(gram: Tensor, x: Tensor) -> None:
    return None


@_operator(
    "coordinate_descent(Tensor weight, Tensor hessian, Tensor scale, Tensor zero, Tensor index, int bits, "
    "int sweeps=30, int relax=3, int block=128, Tensor? start=None, int? only=None) -> (Tensor, Tensor, Tensor)"
)
def _coordinate_descent(weight: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor, Tensor]:
    codes = weight.new_empty(weight.shape, dtype=torch.uint8)
    return codes, weight.new_empty(weight.shape[:1]), weight.new_empty(weight.shape)


@_operator(
    "bilevel(Tensor weight, Tensor? factor, int bits, SymInt group, float? threshold=None, bool simplified=False, "
    "int scale_bits=3, int zero_bits=3, int run=16, bool round_zero=False, str scale_dtype='f16', int block=128, "
    "Tensor? mask=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def _bilevel(
    weight: Tensor,
    factor: Tensor | None,
    bits: int,
    group: int,
    threshold: float | None = None,
    simplified: bool = False,
    scale_bits: int = 3,
    zero_bits: int = 3,
    run: int = 16,
    *_: object,
    **__: object,
) -> tuple[Tensor, ...]:
    rows, cols = weight.shape
    count = _groups(cols, group)
    codes = [weight.new_empty(shape, dtype=torch.uint8) for shape in ((rows, cols), (rows, count), (rows, count))]
    floats = [weight.new_empty((rows, count)) for _ in range(2)]
    grids = [weight.new_empty((rows // run, count, 2)) for _ in range(2)]
    mask = weight.new_empty(weight.shape, dtype=torch.uint8)
    last = weight.new_empty(weight.shape), weight.new_empty((rows,))
    return (codes[0], *floats, *codes[1:], *grids, mask, *last)


@_operator(
    "half_quadratic(Tensor weight, int bits, SymInt group=-1, float p=0.7, float beta=10.0, float kappa=1.01, "
    "int steps=20, bool stop=True, bool best=False, bool round_zero=False, str scale_dtype='f32')"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
def _half_quadratic(
    weight: Tensor,
    bits: int,
    group: int = -1,
    p: float = 0.7,
    beta: float = 10.0,
    kappa: float = 1.01,
    steps: int = 20,
    *_: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grids = weight.shape[0], _groups(weight.shape[1], group)
    codes = weight.new_empty(weight.shape, dtype=torch.uint8)
    return codes, weight.new_empty(grids), weight.new_empty(grids), weight.new_empty((steps,))


@_operator("inverse_factor(Tensor hessian, float damp) -> Tensor")
def _inverse_factor(hessian: Tensor, damp: float) -> Tensor:
    return hessian.new_empty(hessian.shape)


@_operator(
    f"gptq(Tensor weight, Tensor factor, int bits, SymInt group=-1, {_GRID}, {_SHRINK}, bool fresh_groups=False, "
    "int block=128, Tensor? scale=None, Tensor? zero=None, Tensor? index=None)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def _gptq(
    weight: Tensor,
    factor: Tensor,
    bits: int,
    group: int = -1,
    symmetric: bool = True,
    narrow: bool = False,
    forced_zero: bool = True,
    eps: float = 0.0,
    scale_dtype: str = "f32",
    norm: float = 2.4,
    shrink_grid: int = 100,
    shrink_steps: int = 0,
    fresh_groups: bool = False,
    block: int = 128,
    scale: Tensor | None = None,
    zero: Tensor | None = None,
    index: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, cols = weight.shape
    grids = (rows, _groups(cols, group)) if scale is None else scale.shape
    codes, zeros = weight.new_empty(weight.shape, dtype=torch.uint8), weight.new_empty(grids, dtype=torch.uint8)
    return codes, weight.new_empty(grids), zeros, weight.new_empty(weight.shape), weight.new_empty((rows,))


@_operator(
    "gptq_codebook(Tensor weight, Tensor factor, Tensor codebook, Tensor? residual=None, int block=128)"
    " -> (Tensor, Tensor, Tensor)"
)
def _gptq_codebook(weight: Tensor, factor: Tensor, codebook: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    rows, cols = weight.shape
    codes = weight.new_empty((-(-rows // codebook.shape[2]), cols), dtype=torch.int32)
    return codes, weight.new_empty(weight.shape), weight.new_empty((rows,))


@_operator(
    "wna16(Tensor x, Tensor words, Tensor scale, Tensor? zero, int bits, SymInt group=-1, Tensor? order=None) -> Tensor"
)
def _wna16(x: Tensor, words: Tensor, *_: object, **__: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], words.shape[0]))


@_operator("wna16_by_input(Tensor x, Tensor words, Tensor scale, Tensor? zero, int bits, SymInt group=-1) -> Tensor")
def _wna16_by_input(x: Tensor, words: Tensor, *_: object, **__: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], words.shape[0]))


@_operator(
    "wna16_grouped(Tensor x, Tensor words, Tensor scale, Tensor? zero, Tensor offsets, int bits, SymInt group=-1, "
    "Tensor? rows=None) -> Tensor"
)
def _wna16_grouped(
    x: Tensor,
    words: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    offsets: Tensor,
    bits: int,
    group: int = -1,
    rows: Tensor | None = None,
) -> Tensor:
    return x.new_empty(((x if rows is None else rows).shape[0], words.shape[1]))


@_operator("lookup(Tensor x, Tensor words, Tensor scale, Tensor table, SymInt group=-1) -> Tensor")
def _lookup(x: Tensor, words: Tensor, *_: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], words.shape[0]))


@_operator(
    "w4a8(Tensor x, Tensor words, Tensor x_scale, Tensor w_scale, Tensor? level=None, Tensor? zero=None, "
    "SymInt group=-1, Tensor? bias=None) -> Tensor"
)
def _w4a8(x: Tensor, words: Tensor, *_: object, **__: object) -> Tensor:
    return x.new_empty((x.shape[0], words.shape[0]), dtype=torch.float32)


@_operator("w8a8(Tensor x, Tensor weight, Tensor x_scale, Tensor w_scale, Tensor? bias=None) -> Tensor")
def _w8a8(x: Tensor, weight: Tensor, x_scale: Tensor, w_scale: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float32)


@_operator(
    "fp8(Tensor x, Tensor weight, Tensor x_scale, Tensor w_scale, str format='e4m3fn', Tensor? bias=None) -> Tensor"
)
def _fp8(x: Tensor, weight: Tensor, *_: object) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float32)


@_operator(
    "fp8_grouped(Tensor x, Tensor weight, Tensor x_scale, Tensor w_scale, Tensor offsets, str format='e4m3fn', "
    "Tensor? bias=None, Tensor? rows=None) -> Tensor"
)
def _fp8_grouped(
    x: Tensor,
    weight: Tensor,
    x_scale: Tensor,
    w_scale: Tensor,
    offsets: Tensor,
    format: str = "e4m3fn",
    bias: Tensor | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    return x.new_empty(((x if rows is None else rows).shape[0], weight.shape[1]), dtype=torch.float32)


@_operator(
    "block_scaled(Tensor x, Tensor words, Tensor scale, str element, int block=32, str scale_dtype='e8m0', "
    "float tensor_scale=1.0) -> Tensor"
)
def _block_scaled(x: Tensor, words: Tensor, *_: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], words.shape[0]))


@_operator("csr(Tensor x, Tensor values, Tensor columns, Tensor pointers, Tensor? base=None) -> Tensor")
def _csr(x: Tensor, values: Tensor, columns: Tensor, pointers: Tensor, base: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], pointers.shape[0] - 1))


@_operator(
    "codebook_gemm(Tensor x, Tensor words, int bits=2, Tensor? codebook=None, Tensor? residual=None, "
    "SymInt? outputs=None) -> Tensor"
)
def _codebook_gemm(
    x: Tensor,
    words: Tensor,
    bits: int = 2,
    codebook: Tensor | None = None,
    residual: Tensor | None = None,
    outputs: int | None = None,
) -> Tensor:
    height = 1 if codebook is None else codebook.shape[2]
    return x.new_empty((*x.shape[:-1], words.shape[0] * height if outputs is None else outputs))


@_operator("nearest_codeword(Tensor x, Tensor codebook, Tensor? weights=None, str metric='l2') -> (Tensor, Tensor)")
def _nearest_codeword(x: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[:1], dtype=torch.int32), x.new_empty(x.shape[:1])


@_operator(
    "kmeans(Tensor x, int k, Tensor? weights=None, Tensor? start=None, str init='plusplus', int seed=0, "
    "int iterations=25, float tolerance=0.0) -> (Tensor, Tensor, Tensor)"
)
def _kmeans(
    x: Tensor,
    k: int,
    weights: Tensor | None = None,
    start: Tensor | None = None,
    init: str = "plusplus",
    seed: int = 0,
    iterations: int = 25,
    tolerance: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    index = x.new_empty(x.shape[:1], dtype=torch.int32)
    return x.new_empty((k, x.shape[1])), index, x.new_empty((iterations + 1,))


@_operator("e8p_encode(Tensor x, int bits=2) -> Tensor")
def _e8p_encode(x: Tensor, bits: int = 2) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1] // 8), dtype=torch.uint16 if bits == 2 else torch.int32)


@_operator("e8p_decode(Tensor codes, int bits=2) -> Tensor")
def _e8p_decode(codes: Tensor, bits: int = 2) -> Tensor:
    return codes.new_empty((codes.shape[0], codes.shape[1] * 8), dtype=torch.float32)


@_operator(
    "ldlq(Tensor weight, Tensor? hessian, int bits, str codewords='integers', int sweeps=0, Tensor? start=None, "
    "int block=128) -> (Tensor, Tensor, Tensor)"
)
def _ldlq(
    weight: Tensor, hessian: Tensor | None, bits: int, codewords: str = "integers", *_: object, **__: object
) -> tuple[Tensor, Tensor, Tensor]:
    rows, cols = weight.shape
    codes = weight.new_empty((rows, cols // (8 if codewords == "e8p" else 1)), dtype=torch.int32)
    return codes, weight.new_empty(weight.shape), weight.new_empty((rows,))


@_operator(
    "min_max(Tensor a, Tensor b, Tensor levels, Tensor codes, Tensor? frozen=None, Tensor? gram=None, "
    "Tensor? pull=None, int iterations=30, int active=100, bool guard=True, str moves='swap', float share=0.005, "
    "int seed=9101) -> (Tensor, Tensor, Tensor)"
)
def _min_max(
    a: Tensor, b: Tensor, levels: Tensor, codes: Tensor, *_: object, **__: object
) -> tuple[Tensor, Tensor, Tensor]:
    rows = codes.shape[0]
    return codes.new_empty(codes.shape), a.new_empty((rows, 2)), a.new_empty((rows, 2))


@_operator("product_encode(Tensor x, Tensor codebooks) -> Tensor")
def _product_encode(x: Tensor, codebooks: Tensor) -> Tensor:
    dtype = torch.uint8 if codebooks.shape[1] <= 256 else torch.uint16
    return x.new_empty((x.shape[0], codebooks.shape[0]), dtype=dtype)


@_operator("product_decode(Tensor codes, Tensor codebooks) -> Tensor")
def _product_decode(codes: Tensor, codebooks: Tensor) -> Tensor:
    return codebooks.new_empty((codes.shape[0], codebooks.shape[0] * codebooks.shape[2]))


@_operator("product_scan(Tensor tables, Tensor blocks, SymInt rows) -> (Tensor, Tensor)")
def _product_scan(tables: Tensor, blocks: Tensor, rows: int) -> tuple[Tensor, Tensor]:
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
