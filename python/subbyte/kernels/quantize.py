"""Affine quantization, x ~ scale * (code - zero): fitting grids, rounding to them, and back; and to tables of values.

A group is `group` consecutive columns of a row, which divide the columns; -1 is the whole row, so channels and tokens
are rows, and a grid for a whole tensor is one for that tensor as a single row. Rounding is half to even, all in f32.
"""

from __future__ import annotations

from subbyte.kernels._array import Array, call


def fit_affine(
    x: Array,
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
) -> tuple[Array, Array]:
    """Scale and zero point of each group from its range.

    x             [R, C] f32, finite; CPU, contiguous
    bits          1 to 8
    symmetric     scale = 2 max|x| / (2 ** bits - 1) and zero = 2 ** (bits - 1); else
                  scale = (max - min) / (2 ** bits - 1) and zero = clamp(rint(-min / scale), 0, 2 ** bits - 1)
    narrow        symmetric without the lowest code: scale = max|x| / (2 ** (bits - 1) - 1)
    forced_zero   the range is widened to contain zero
    eps           least range; with 0, a group of range 0 gets the range -1 to 1 (GPTQ's rule)
    scale_dtype   "f32", "f16", "bf16": what the scale will be stored as; it is rounded to that, never to 0 or infinity,
                  before the zero point is found
    shrink_steps  not 0: tries 1 - i / shrink_grid times the range for i in 0..shrink_steps and keeps the first with the
                  smallest sum of |Q(x) - x| ** norm (GPTQ's `mse`: 2.4, 100, 80)
    returns       scale [R, C / group] f32, zero [R, C / group] u8

    Every path gives the same bits. Raises RangeError (an impossible grid), UnknownNameError (scale_dtype), ShapeError,
    NotFiniteError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> fit_affine(np.array([[-1.0, 0.0, 1.0, 6.5]], np.float32), bits=4, symmetric=False)
    (array([[0.5]], dtype=float32), array([[2]], dtype=uint8))
    """
    options = {"forced_zero": forced_zero, "eps": eps, "scale_dtype": scale_dtype}
    search = {"norm": norm, "shrink_grid": shrink_grid, "shrink_steps": shrink_steps}
    scale, zero = call(
        "fit_affine", {"x": x}, bits=bits, group=group, symmetric=symmetric, narrow=narrow, **options, **search
    )
    return scale, zero


def quantize_affine(x: Array, scale: Array, zero: Array, bits: int, group: int = -1) -> Array:
    """Rounds to a given grid: codes = clamp(rint(x / scale) + zero, 0, 2 ** bits - 1).

    x        [R, C] f32, finite; CPU, contiguous
    scale    [R, C / group] f32, above 0
    zero     [R, C / group] u8, below 2 ** bits
    returns  [R, C] u8

    Every path gives the same bits. Raises RangeError (bits, scale, zero), ShapeError, NotFiniteError, DtypeError,
    StrideError, DeviceError.

    >>> import numpy as np
    >>> x, scale, zero = np.array([[-1.0, 0.0, 1.0, 9.0]], np.float32), np.float32([[0.5]]), np.uint8([[2]])
    >>> quantize_affine(x, scale, zero, bits=4)
    array([[ 0,  2,  4, 15]], dtype=uint8)
    """
    return call("quantize_affine", {"x": x, "scale": scale, "zero": zero}, bits=bits, group=group)


def quantize_symmetric(x: Array, scale: Array, bits: int = 8, group: int = -1, narrow: bool = True) -> Array:
    """Rounds to a given grid without zero point, to signed codes: clamp(rint(x / scale), low, 2 ** (bits - 1) - 1).

    x        [R, C] f32, finite; CPU, contiguous
    scale    [R, C / group] f32, above 0
    narrow   low is -(2 ** (bits - 1) - 1); else -2 ** (bits - 1)
    returns  [R, C] i8

    Every path gives the same bits. Raises RangeError (bits, scale), ShapeError, NotFiniteError, DtypeError,
    StrideError, DeviceError.

    >>> import numpy as np
    >>> quantize_symmetric(np.array([[-99.0, 1.0, 2.5]], np.float32), np.float32([[0.5]]))
    array([[-127,    2,    5]], dtype=int8)
    """
    return call("quantize_symmetric", {"x": x, "scale": scale}, bits=bits, group=group, narrow=narrow)


def dequantize_affine(codes: Array, scale: Array, zero: Array, group: int = -1) -> Array:
    """The values of codes: scale * (codes - zero), the product rounded once.

    codes    [R, C] u8; CPU, contiguous
    scale    [R, C / group] f32
    zero     [R, C / group] u8; or f32, f16 or bf16, and then the difference is rounded to f32 too
    returns  [R, C] f32

    NaN and infinity in scales and zero points spread as in any product. Every path gives the same bits. Raises
    ShapeError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> dequantize_affine(np.array([[0, 2, 15]], np.uint8), np.float32([[0.5]]), np.uint8([[2]]))
    array([[-1. ,  0. ,  6.5]], dtype=float32)
    """
    return call("dequantize_affine", {"codes": codes, "scale": scale, "zero": zero}, group=group)


def quantize_table(x: Array, scale: Array, bounds: Array, group: int = -1) -> Array:
    """Rounds to the values of a table: a code is how many of the boundaries between them x / scale is above.

    x        [R, C] f32, finite; CPU, contiguous
    scale    [R, C / group] f32, above 0
    bounds   [1, L] f32, L 1 to 255, rising: what lies between the values of L + 1 codes; or [R, L]: those of each row
    returns  [R, C] u8; on a boundary the even one of the two codes

    Boundaries halfway between the values give the nearest one. Every path gives the same bits. Raises RangeError
    (scale, bounds), ShapeError, NotFiniteError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> quantize_table(np.float32([[-9, -0.5, 0, 0.2, 9]]), np.float32([[1]]), np.float32([[-0.5, 0.1, 2]]))
    array([[0, 0, 1, 2, 3]], dtype=uint8)
    """
    return call("quantize_table", {"x": x, "scale": scale, "bounds": bounds}, group=group)


def dequantize_table(codes: Array, scale: Array, table: Array, group: int = -1) -> Array:
    """The values of codes: scale * table[code], the product rounded once.

    codes    [R, C] u8; CPU, contiguous
    scale    [R, C / group] f32
    table    [1, V] f32, or [R, V]: the values of each row; V above every code
    returns  [R, C] f32

    NaN and infinity in scales and tables spread as in any product. Raises RangeError (codes), ShapeError, DtypeError,
    StrideError, DeviceError.

    >>> import numpy as np
    >>> dequantize_table(np.array([[0, 2, 1]], np.uint8), np.float32([[0.5]]), np.float32([[-1, 0, 3]]))
    array([[-0.5,  1.5,  0. ]], dtype=float32)
    """
    return call("dequantize_table", {"codes": codes, "scale": scale, "table": table}, group=group)


def quantize_tokens(x: Array, eps: float = 1e-5, format: str = "int8") -> tuple[Array, Array]:
    """Dynamic 8-bit quantization of activations: each row by its own scale, in one pass.

    x        [T, C] f32, f16 or bf16; contiguous; CPU or CUDA
    eps      least max|x|, above 0
    format   "int8", of largest value M = 127, or "e4m3fn", M = 448
    returns  codes [T, C] i8, or u8 for e4m3fn: x / scale, rounded to nearest even; scale [T] f32 = max(max|x|, eps) / M

    A row with NaN or infinity gets the scale NaN and codes 0, so that all that is computed from it is NaN. Every path
    gives the same bits. Raises RangeError (eps), UnknownNameError (format), ShapeError, DtypeError, StrideError,
    DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> quantize_tokens(np.array([[-127.0, 63.0]], np.float32))
    (array([[-127,   63]], dtype=int8), array([1.], dtype=float32))
    """
    codes, scale = call("quantize_tokens", {"x": x}, eps=eps, format=format)
    return codes, scale


def norm_quantize(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    norm: str = "rms",
    norm_eps: float = 1e-5,
    eps: float = 1e-5,
    format: str = "int8",
) -> tuple[Array, Array]:
    """A norm and the dynamic quantization of what it gives, in one pass: what stands before a quantized product.

    x         [T, C] f32, f16 or bf16; contiguous; CPU or CUDA
    weight    [C] f32, f16 or bf16; on CUDA: the dtype of x, as for the bias
    bias      [C] f32, f16 or bf16, or None
    norm      "rms": y = x / sqrt(mean(x^2) + norm_eps) * weight + bias; "layer": the same of x - mean(x)
    norm_eps  0 or more
    eps       least max|y|, above 0
    format    as in `quantize_tokens`
    returns   codes [T, C] i8, or u8 for e4m3fn; scale [T] f32: those of `quantize_tokens` for y

    Sums are f64; the mean and the root's inverse are rounded to f32 once, as is each step after that: the difference,
    both products, the sum. Every path of the CPU gives the same bits; CUDA, which adds in another order, all but where
    that f64 lies at a tie. A row with NaN or infinity gets the scale NaN and codes 0. Zhang and Sennrich, 2019; Ba et
    al., 2016. Raises RangeError (norm_eps, eps), UnknownNameError (norm, format), ShapeError, DtypeError, StrideError,
    DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> norm_quantize(np.array([[3.0, -4.0]], np.float32), np.float32([1.0, 2.0]), norm_eps=0.0)
    (array([[  48, -127]], dtype=int8), array([0.01781686], dtype=float32))
    """
    arrays, options = {"x": x, "weight": weight, "bias": bias}, {"norm": norm, "norm_eps": norm_eps}
    codes, scale = call("norm_quantize", arrays, **options, eps=eps, format=format)
    return codes, scale


def search_clip(
    weight: Array,
    gram: Array,
    bits: int,
    group: int,
    symmetric: bool = True,
    narrow: bool = False,
    forced_zero: bool = True,
    eps: float = 0.0,
    scale_dtype: str = "f32",
    shrink_grid: int = 20,
    shrink_steps: int = 10,
) -> Array:
    """AWQ's clip search: the largest magnitude that each weight group should keep (Lin et al., 2023, released code).

    weight   [R, C] f32, finite; CPU, contiguous
    gram     [C / group, group, group] f32, finite: X^T X of the inputs of each group of columns
    returns  [R, C / group] f32: max|w| * (1 - i / shrink_grid) for the i in 0..shrink_steps whose error d has the
             smallest d^T gram d, the first if several have; d = Q(clamp(w)) - w, and Q fits the grid to what is clamped

    The grid's options are those of `fit_affine`. d^T gram d is the squared error of the group's part of the output, so
    the inputs themselves are not needed. Raises RangeError (an impossible grid or search), UnknownNameError
    (scale_dtype), ShapeError, NotFiniteError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> weight = np.array([[1.0, 1.0, 1.0, 8.0]], np.float32)
    >>> search_clip(weight, np.diag(np.float32([1, 1, 1, 0]))[None], bits=3, group=4)  # the large one does not matter
    array([[4.4]], dtype=float32)
    """
    options = {"forced_zero": forced_zero, "eps": eps, "scale_dtype": scale_dtype}
    search = {"shrink_grid": shrink_grid, "shrink_steps": shrink_steps}
    arrays = {"weight": weight, "gram": gram}
    return call("search_clip", arrays, bits=bits, group=group, symmetric=symmetric, narrow=narrow, **options, **search)
