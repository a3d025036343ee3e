from typing import Any, final

__all__ = [
    "Buffer",
    "Machine",
    "accumulate_gram",
    "bilevel",
    "block_scaled",
    "codebook_gemm",
    "coordinate_descent",
    "csr",
    "decode_minifloat",
    "dequantize_affine",
    "dequantize_block",
    "dequantize_table",
    "e8p_decode",
    "e8p_encode",
    "encode_minifloat",
    "fit_affine",
    "fp8",
    "fp8_grouped",
    "gptq",
    "gptq_codebook",
    "hadamard",
    "hadamard_matrix",
    "hadamard_quantize",
    "half_quadratic",
    "inverse_factor",
    "kmeans",
    "ldlq",
    "lookup",
    "machine",
    "min_max",
    "nearest_codeword",
    "norm_quantize",
    "pack",
    "paths",
    "product_decode",
    "product_encode",
    "product_scan",
    "quantize_affine",
    "quantize_block",
    "quantize_symmetric",
    "quantize_table",
    "quantize_tokens",
    "search_clip",
    "unpack",
    "w4a8",
    "w8a8",
    "wna16",
    "wna16_by_input",
    "wna16_grouped",
]

@final
class Buffer:
    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

@final
class Machine:
    def __new__(cls, path: str, threads: int) -> Machine: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    @property
    def path(self) -> str: ...
    @property
    def threads(self) -> int: ...

def machine() -> Machine: ...
def paths() -> list[str]: ...
def pack(codes: Any, bits: int, order: str = "dense", *, on: Machine | None = None) -> Buffer: ...
def unpack(words: Any, bits: int, cols: int, order: str = "dense", *, on: Machine | None = None) -> Buffer: ...
def encode_minifloat(
    x: Any,
    format: str,
    saturate: bool = True,
    rounding: str = "even",
    seed: int = 0,
    *,
    on: Machine | None = None,
) -> Buffer: ...
def decode_minifloat(codes: Any, format: str, *, on: Machine | None = None) -> Buffer: ...
def quantize_block(
    x: Any,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    rule: str = "floor",
    tensor_scale: float = 1.0,
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer]: ...
def dequantize_block(
    codes: Any,
    scale: Any,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
    *,
    on: Machine | None = None,
) -> Buffer: ...
def fit_affine(
    x: Any,
    bits: int,
    group: int = ...,
    symmetric: bool = True,
    narrow: bool = False,
    forced_zero: bool = True,
    eps: float = 0.0,
    scale_dtype: str = "f32",
    norm: float = 2.4,
    shrink_grid: int = 100,
    shrink_steps: int = 0,
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer]: ...
def quantize_affine(
    x: Any, scale: Any, zero: Any, bits: int, group: int = ..., *, on: Machine | None = None
) -> Buffer: ...
def quantize_symmetric(
    x: Any, scale: Any, bits: int = 8, group: int = ..., narrow: bool = True, *, on: Machine | None = None
) -> Buffer: ...
def dequantize_affine(codes: Any, scale: Any, zero: Any, group: int = ..., *, on: Machine | None = None) -> Buffer: ...
def quantize_table(x: Any, scale: Any, bounds: Any, group: int = ..., *, on: Machine | None = None) -> Buffer: ...
def dequantize_table(codes: Any, scale: Any, table: Any, group: int = ..., *, on: Machine | None = None) -> Buffer: ...
def quantize_tokens(
    x: Any, eps: float = 1e-5, format: str = "int8", *, on: Machine | None = None
) -> tuple[Buffer, Buffer]: ...
def norm_quantize(
    x: Any,
    weight: Any,
    bias: Any | None = None,
    norm: str = "rms",
    norm_eps: float = 1e-5,
    eps: float = 1e-5,
    format: str = "int8",
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer]: ...
def search_clip(
    weight: Any,
    gram: Any,
    bits: int,
    group: int,
    symmetric: bool = True,
    narrow: bool = False,
    forced_zero: bool = True,
    eps: float = 0.0,
    scale_dtype: str = "f32",
    shrink_grid: int = 20,
    shrink_steps: int = 10,
    *,
    on: Machine | None = None,
) -> Buffer: ...
def hadamard(x: Any, scale: float | None = None, transpose: bool = False, *, on: Machine | None = None) -> Buffer: ...
def hadamard_matrix(n: int) -> Buffer: ...
def hadamard_quantize(
    x: Any,
    signs: Any | None = None,
    scale: float | None = None,
    transpose: bool = False,
    eps: float = 1e-5,
    format: str = "int8",
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer]: ...
def accumulate_gram(gram: Any, x: Any, *, on: Machine | None = None) -> None: ...
def inverse_factor(hessian: Any, damp: float, *, on: Machine | None = None) -> Buffer: ...
def gptq(
    weight: Any,
    factor: Any,
    bits: int,
    group: int = ...,
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
    scale: Any | None = None,
    zero: Any | None = None,
    index: Any | None = None,
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer, Buffer, Buffer, Buffer]: ...
def gptq_codebook(
    weight: Any,
    factor: Any,
    codebook: Any,
    residual: Any | None = None,
    block: int = 128,
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer, Buffer]: ...
def coordinate_descent(
    weight: Any,
    hessian: Any,
    scale: Any,
    zero: Any,
    index: Any,
    bits: int,
    sweeps: int = 30,
    relax: int = 3,
    block: int = 128,
    start: Any | None = None,
    only: int | None = None,
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer, Buffer]: ...
def bilevel(
    weight: Any,
    factor: Any | None,
    bits: int,
    group: int,
    threshold: float | None = None,
    simplified: bool = False,
    scale_bits: int = 3,
    zero_bits: int = 3,
    run: int = 16,
    round_zero: bool = False,
    scale_dtype: str = "f16",
    block: int = 128,
    mask: Any | None = None,
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer, Buffer, Buffer, Buffer, Buffer, Buffer, Buffer, Buffer, Buffer]: ...
def half_quadratic(
    weight: Any,
    bits: int,
    group: int = ...,
    p: float = 0.7,
    beta: float = 10.0,
    kappa: float = 1.01,
    steps: int = 20,
    stop: bool = True,
    best: bool = False,
    round_zero: bool = False,
    scale_dtype: str = "f32",
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer, Buffer, Buffer]: ...
def wna16(
    x: Any,
    words: Any,
    scale: Any,
    zero: Any | None,
    bits: int,
    group: int = ...,
    order: Any | None = None,
    *,
    on: Machine | None = None,
) -> Buffer: ...
def wna16_by_input(
    x: Any, words: Any, scale: Any, zero: Any | None, bits: int, group: int = ..., *, on: Machine | None = None
) -> Buffer: ...
def wna16_grouped(
    x: Any,
    words: Any,
    scale: Any,
    zero: Any | None,
    offsets: Any,
    bits: int,
    group: int = ...,
    rows: Any | None = None,
    *,
    on: Machine | None = None,
) -> Buffer: ...
def lookup(x: Any, words: Any, scale: Any, table: Any, group: int = ..., *, on: Machine | None = None) -> Buffer: ...
def w4a8(
    x: Any,
    words: Any,
    x_scale: Any,
    w_scale: Any,
    level: Any | None = None,
    zero: Any | None = None,
    group: int = ...,
    bias: Any | None = None,
    *,
    on: Machine | None = None,
) -> Buffer: ...
def w8a8(
    x: Any, weight: Any, x_scale: Any, w_scale: Any, bias: Any | None = None, *, on: Machine | None = None
) -> Buffer: ...
def fp8(
    x: Any,
    weight: Any,
    x_scale: Any,
    w_scale: Any,
    format: str = "e4m3fn",
    bias: Any | None = None,
    *,
    on: Machine | None = None,
) -> Buffer: ...
def fp8_grouped(
    x: Any,
    weight: Any,
    x_scale: Any,
    w_scale: Any,
    offsets: Any,
    format: str = "e4m3fn",
    bias: Any | None = None,
    rows: Any | None = None,
    *,
    on: Machine | None = None,
) -> Buffer: ...
def csr(
    x: Any, values: Any, columns: Any, pointers: Any, base: Any | None = None, *, on: Machine | None = None
) -> Buffer: ...
def nearest_codeword(
    x: Any, codebook: Any, weights: Any | None = None, metric: str = "l2", *, on: Machine | None = None
) -> tuple[Buffer, Buffer]: ...
def kmeans(
    x: Any,
    k: int,
    weights: Any | None = None,
    start: Any | None = None,
    init: str = "plusplus",
    seed: int = 0,
    iterations: int = 25,
    tolerance: float = 0.0,
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer, Buffer]: ...
def e8p_encode(x: Any, bits: int = 2, *, on: Machine | None = None) -> Buffer: ...
def e8p_decode(codes: Any, bits: int = 2, *, on: Machine | None = None) -> Buffer: ...
def product_encode(x: Any, codebooks: Any, *, on: Machine | None = None) -> Buffer: ...
def product_decode(codes: Any, codebooks: Any, *, on: Machine | None = None) -> Buffer: ...
def product_scan(tables: Any, blocks: Any, rows: int, *, on: Machine | None = None) -> tuple[Buffer, Buffer]: ...
def ldlq(
    weight: Any,
    hessian: Any,
    bits: int,
    codewords: str = "integers",
    sweeps: int = 0,
    start: Any = None,
    block: int = 128,
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer, Buffer]: ...
def min_max(
    a: Any,
    b: Any,
    levels: Any,
    codes: Any,
    frozen: Any | None = None,
    gram: Any | None = None,
    pull: Any | None = None,
    iterations: int = 30,
    active: int = 100,
    guard: bool = True,
    moves: str = "swap",
    share: float = 0.005,
    seed: int = 9101,
    *,
    on: Machine | None = None,
) -> tuple[Buffer, Buffer, Buffer]: ...
def block_scaled(
    x: Any,
    words: Any,
    scale: Any,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
    *,
    on: Machine | None = None,
) -> Buffer: ...
def codebook_gemm(
    x: Any,
    words: Any,
    bits: int = 2,
    codebook: Any = None,
    residual: Any = None,
    outputs: int | None = None,
    *,
    on: Machine | None = None,
) -> Buffer: ...
