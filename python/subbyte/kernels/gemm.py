"""Products with quantized weights, decoded on the way, and with the sparse outliers beside them."""

from __future__ import annotations

from subbyte.kernels._array import Array, call


def wna16(
    x: Array, words: Array, scale: Array, zero: Array | None, bits: int, group: int = -1, order: Array | None = None
) -> Array:
    """Activations times low-bit weights: out = x[.., order] W^T, W = scale * (code - zero).

    x        [..., K] f32, f16 or bf16, contiguous; on CUDA: f16 or bf16
    words    [N, ceil(K * bits / 32)] i32: the codes of W, packed in "dense" order
    scale    [N, K / group] f32, f16 or bf16; on CUDA: the dtype of x
    zero     [N, K / group] u8, or f32, f16 or bf16 (on CUDA: the dtype of x), or None for 2 ** (bits - 1)
    group    columns of W that share a scale, dividing K; -1: all
    order    [K] i32 or None: the column of x that meets each column of W. A weight whose groups are not neighbours
             (act-order, GPTQ's g_idx) is packed with its columns in order = argsort(g_idx), stable
    returns  [..., N], dtype of x

    Sums are f32, rounded once at the end; what is too large for f16 becomes infinity. Off by at most about
    K * 2 ** -23 * sum|x W| before that rounding. torch, JAX and CuPy arrays on a CUDA device run there. Raises
    RangeError (bits; a column in `order` that x has not: on CUDA, where nobody waits to look, it makes the whole result
    NaN instead), ShapeError, DtypeError, StrideError, DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> from subbyte.kernels import pack
    >>> words = pack(np.array([[8, 9, 10, 7], [0, 8, 8, 8]], np.uint8), bits=4)
    >>> wna16(np.ones((1, 4), np.float32), words, np.float32([[0.5], [0.25]]), None, bits=4)
    array([[ 1., -2.]], dtype=float32)
    """
    arrays = {"x": x, "words": words, "scale": scale, "zero": zero, "order": order}
    return call("wna16", arrays, bits=bits, group=group)


def wna16_by_input(x: Array, words: Array, scale: Array, zero: Array | None, bits: int, group: int = -1) -> Array:
    """`wna16` with scales of input columns: neighbouring outputs share one in each (AdaDim, Heo et al., 2023).

    x        [..., K] f32, f16 or bf16; CPU, contiguous
    words    [N, ceil(K * bits / 32)] i32: the codes of W, packed in "dense" order
    scale    [N / group, K] f32, f16 or bf16
    zero     [N / group, K] u8, f32, f16 or bf16, or None for 2 ** (bits - 1)
    group    rows of W that share a scale in each column, dividing N; -1: all
    returns  [..., N], dtype of x: x W^T with W[n, k] = scale[n / group, k] * (code[n, k] - zero[n / group, k])

    Sums are f32, rounded once at the end; what is too large for f16 becomes infinity. Off by at most about
    K * 2 ** -23 * sum_k |x s| (|code - c| + |zero - c|), c = 2 ** (bits - 1), before that rounding. Does not depend on
    the number of threads. Raises RangeError (bits), ShapeError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> from subbyte.kernels import pack
    >>> words = pack(np.array([[8, 9, 10, 7], [0, 8, 8, 8]], np.uint8), bits=4)
    >>> scale = np.float32([[0.5, 1, 1, 2]])
    >>> wna16_by_input(np.ones((1, 4), np.float32), words, scale, None, bits=4)
    array([[ 1., -4.]], dtype=float32)
    """
    arrays = {"x": x, "words": words, "scale": scale, "zero": zero}
    return call("wna16_by_input", arrays, bits=bits, group=group)


def wna16_grouped(
    x: Array,
    words: Array,
    scale: Array,
    zero: Array | None,
    offsets: Array,
    bits: int,
    group: int = -1,
    rows: Array | None = None,
) -> Array:
    """`wna16` with a weight for each expert of a mixture: out[r] = x[rows[r]] W_e^T, e the expert that has row r.

    x        [T, K] f32, f16 or bf16, on CUDA f16 or bf16; contiguous; CPU or CUDA
    words    [E, N, ceil(K * bits / 32)] i32: the codes of E weights, packed in "dense" order; on CUDA 2, 3, 4 or 8 bits
    scale    [E, N, K / group] f32, f16 or bf16; on CUDA: the dtype of x
    zero     [E, N, K / group] u8, or on the CPU f32, f16 or bf16, or None for 2 ** (bits - 1)
    offsets  [E + 1] i32, from 0 to R, never falling: expert e has the rows offsets[e] to offsets[e + 1] - 1, or none
    group    columns of W that share a scale, dividing K; on CUDA a multiple of 32 or all; -1: all
    rows     [R] i32, or None for those of x in their order: the row of x that meets each row of the result
    returns  [R, N], dtype of x

    What a router chose is so computed in one call: rows = argsort(expert, stable) // k where each token has k experts.
    Sums and bound are those of `wna16`, and a row does not depend on the others. Raises RangeError (bits; offsets, and
    rows that x has not: on CUDA, where nobody waits to look, wrong offsets make the whole result NaN, and a wrong row
    its own), ShapeError, DtypeError, StrideError, DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> from subbyte.kernels import pack
    >>> words = pack(np.array([[8, 9, 10, 7], [0, 8, 8, 8]], np.uint8), bits=4).reshape(2, 1, 1)  # N = 1
    >>> x, scale = np.float32([[1, 1, 1, 1], [1, 2, 3, 4]]), np.ones((2, 1, 1), np.float32)
    >>> offsets, rows = np.int32([0, 2, 3]), np.int32([0, 1, 0])
    >>> wna16_grouped(x, words, scale, None, offsets, bits=4, rows=rows)
    array([[ 2.],
           [ 4.],
           [-8.]], dtype=float32)
    """
    arrays = {"x": x, "words": words, "scale": scale, "zero": zero, "offsets": offsets, "rows": rows}
    return call("wna16_grouped", arrays, bits=bits, group=group)


def lookup(x: Array, words: Array, scale: Array, table: Array, group: int = -1) -> Array:
    """Activations times a weight whose codes stand for the values of a table: out = x W^T, W = scale * table[code].

    x        [..., K] f32, f16 or bf16, on CUDA f16 or bf16; contiguous; CPU or CUDA
    words    [N, ceil(K * b / 32)] i32: the codes of W, packed in "dense" order at b bits
    scale    [N, K / group] f32, f16 or bf16; on CUDA: the dtype of x
    table    [1, 2 ** b] f32, f16 or bf16, b 1 to 8: the values; or [N, 2 ** b]: those of each row of W; on CUDA: the
             dtype of x
    group    columns of W that share a scale, dividing K; -1: all
    returns  [..., N], dtype of x

    What NF4 (Dettmers et al., 2023) and power exponents (Yvinec et al., 2023) run on. Sums are f32, rounded once at the
    end; what is too large for f16 becomes infinity. Off by at most about K * 2 ** -23 * sum|x W| before that rounding.
    Does not depend on the number of threads. Raises ShapeError, DtypeError, StrideError, DeviceError; on CUDA also
    RangeError (sizes from 2 ** 31 on), DriverError and DependencyError.

    >>> import numpy as np
    >>> from subbyte.kernels import pack
    >>> words = pack(np.array([[0, 1, 2, 3], [3, 3, 0, 0]], np.uint8), bits=2)
    >>> table = np.float32([[-1, -0.25, 0.25, 1]])
    >>> lookup(np.float32([[1, 2, 4, 8]]), words, np.float32([[2], [0.5]]), table)
    array([[15. , -4.5]], dtype=float32)
    """
    return call("lookup", {"x": x, "words": words, "scale": scale, "table": table}, group=group)


def w4a4(
    x: Array,
    words: Array,
    x_scale: Array,
    w_scale: Array,
    group: int = -1,
    x_outliers: Array | None = None,
    w_outliers: Array | None = None,
    x_outlier_scale: Array | None = None,
    w_outlier_scale: Array | None = None,
    bias: Array | None = None,
) -> Array:
    """4-bit activations times 4-bit weights, with scales of groups on both sides and outliers of 8 bits beside them.

    x                [M, K / 8] i32, K below 2 ** 17: the codes of x, packed in "dense" order at 4 bits, those of
                     `quantize_symmetric` plus 8; contiguous; CPU or CUDA
    words            [N, K / 8] i32: those of W
    x_scale          [M, K / group] f32
    w_scale          [N, K / group] f32
    group            columns that share a scale in both, dividing K; on CUDA a multiple of 128 or all; -1: all
    x_outliers       [M, C] i8, C below 2 ** 17: columns that are kept at 8 bits; or None, like the three that follow
    w_outliers       [N, C] i8
    x_outlier_scale  [M] f32
    w_outlier_scale  [N] f32
    bias             [N] f32, or None
    returns          [M, N] f32: sum_g s_g * x_scale_g * w_scale_g + o * x_outlier_scale * w_outlier_scale + bias, with
                     the sums s_g of the products of a group and o of the outliers'

    The product under Atom (Zhao et al., 2024): groups of 128, two neighbouring rows of W with the same scales, 128
    outlier columns; with one group and no outliers that under QuaRot (Ashkboos et al., 2024), whose sum is exact,
    rounded to f32 once, then scaled in this order: every path gives the same bits. With more, sums of a group, or of
    128 columns of it, are exact and the rest is f32: off by at most about (K / 128 + C / 64 + 6) * 2 ** -23 *
    sum|terms|, with K / group for K / 128 where that is more. Raises RangeError (K, C), ShapeError, DtypeError,
    StrideError, DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> from subbyte.kernels import pack
    >>> x, w = (pack(np.array([codes], np.uint8), bits=4) for codes in ([9, 10, 8, 0] * 2, [15, 8, 8, 9] * 2))
    >>> w4a4(x, w, np.float32([[0.5, 2]]), np.float32([[1, 1]]), group=4)
    array([[-2.5]], dtype=float32)
    """
    arrays = {
        "x": x,
        "words": words,
        "x_scale": x_scale,
        "w_scale": w_scale,
        "x_outliers": x_outliers,
        "w_outliers": w_outliers,
        "x_outlier_scale": x_outlier_scale,
        "w_outlier_scale": w_outlier_scale,
        "bias": bias,
    }
    return call("w4a4", arrays, group=group)


def w4a8(
    x: Array,
    words: Array,
    x_scale: Array,
    w_scale: Array,
    level: Array | None = None,
    zero: Array | None = None,
    group: int = -1,
    bias: Array | None = None,
) -> Array:
    """8-bit activations times 4-bit weights, of two levels or one: out = (x W^T) * x_scale * w_scale + bias.

    x        [M, K] i8, K below 2 ** 17; contiguous; CPU or CUDA
    words    [N, ceil(K / 8)] i32: the codes of W, packed in "dense" order at 4 bits
    x_scale  [M] or [1] f32
    w_scale  [N] or [1] f32: the first level, of a channel; without `level` also [N, K / group]: of a group; CPU only
    level    [N, K / group] u8: the second level, whole numbers; None: 1
    zero     [N, K / group] u8; None: 8
    group    columns that share what belongs to a group, dividing K; on CUDA a multiple of 16 or all; -1: all
    bias     [N] f32, or None
    returns  [M, N] f32

    W[n, k] = level[n, g] * (code[n, k] - zero[n, g]) must lie within -128 to 127, as QServe's protective range has it
    (Lin et al., 2024, section 4.1); no kernel looks, and beyond it no result is promised. The sum is exact; it is
    rounded to f32 once, then scaled in this order. Every path gives the same bits. QServe per group is this with its
    integer zero points, per channel the same without `level`; QQQ per channel has neither. Left out: QServe's real zero
    points per channel, and QQQ's f16 scales per group.

    With scales of groups, as GPTQ and AWQ checkpoints have them: out = (sum_g w_scale[n, g] * s_g) * x_scale + bias,
    s_g the exact sum of x * (code - zero) over a group, code - zero within -128 to 127; off by at most about
    K * 2 ** -23 * sum|x W| |x_scale|. A scale that is not finite gives results that are not. Raises RangeError (K),
    ShapeError, DtypeError, StrideError, DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> from subbyte.kernels import pack
    >>> words = pack(np.array([[8, 9, 10, 0]], np.uint8), bits=4)
    >>> x, one, levels = np.array([[1, 2, 3, 4]], np.int8), np.ones(1, np.float32), np.uint8([[5, 1]])
    >>> w4a8(x, words, one, one, level=levels, group=2)
    array([[-16.]], dtype=float32)
    """
    arrays = {
        "x": x,
        "words": words,
        "x_scale": x_scale,
        "w_scale": w_scale,
        "level": level,
        "zero": zero,
        "bias": bias,
    }
    return call("w4a8", arrays, group=group)


def w8a8(x: Array, weight: Array, x_scale: Array, w_scale: Array, bias: Array | None = None) -> Array:
    """8-bit activations times 8-bit weights: out = (x weight^T) * x_scale * w_scale + bias.

    x        [M, K] i8, K below 2 ** 17; contiguous; CPU or CUDA
    weight   [N, K] i8
    x_scale  [M] or [1] f32
    w_scale  [N] or [1] f32
    bias     [N] f32, or None
    returns  [M, N] f32

    The sum is exact, every code from -128 on included; it is rounded to f32 once, then scaled in this order. Every path
    gives the same bits. Raises RangeError (K), ShapeError, DtypeError, StrideError, DeviceError; on CUDA also
    DriverError and DependencyError.

    >>> import numpy as np
    >>> x, weight = np.array([[1, -2]], np.int8), np.array([[3, 4], [-128, 0]], np.int8)
    >>> w8a8(x, weight, np.float32([0.5]), np.float32([1.0, 2.0]))
    array([[  -2.5, -128. ]], dtype=float32)
    """
    arrays = {"x": x, "weight": weight, "x_scale": x_scale, "w_scale": w_scale, "bias": bias}
    return call("w8a8", arrays)


def fp8(
    x: Array,
    weight: Array,
    x_scale: Array,
    w_scale: Array,
    format: str = "e4m3fn",
    bias: Array | None = None,
) -> Array:
    """8-bit floats times 8-bit floats, scaled by block: out = sum_b (x weight^T)_b * x_scale_b * w_scale_b + bias.

    x        [M, K] u8, codes of `format`; contiguous; CPU or CUDA
    weight   [N, K] u8
    x_scale  [R, B] f32: R is 1 (tensor), M (token) or ceil(M / 128); B is 1 or ceil(K / 128), blocks b of columns
    w_scale  [R, B] f32: R is 1, N (channel) or ceil(N / 128)
    format   "e4m3fn" or "e5m2" (Micikevicius et al., 2022, table 1)
    bias     [N] f32, or None
    returns  [M, N] f32

    Products are exact; sums are f32 within 128 columns, whose scale multiplies them, and f32 across: off by at most
    K * 2 ** -23 * sum|x weight|. NaN and infinity spread. Raises UnknownNameError (format), ShapeError, DtypeError,
    StrideError, DeviceError; on CUDA also RangeError (sizes from 2 ** 31 on), DriverError and DependencyError.

    >>> import numpy as np
    >>> from subbyte.kernels import encode_minifloat
    >>> x = encode_minifloat(np.array([[1.0, -2.0]], np.float32), "e4m3fn")
    >>> fp8(x, x, np.float32([[0.5]]), np.float32([[4.0]]))
    array([[10.]], dtype=float32)
    """
    arrays = {"x": x, "weight": weight, "x_scale": x_scale, "w_scale": w_scale, "bias": bias}
    return call("fp8", arrays, format=format)


def fp8_grouped(
    x: Array,
    weight: Array,
    x_scale: Array,
    w_scale: Array,
    offsets: Array,
    format: str = "e4m3fn",
    bias: Array | None = None,
    rows: Array | None = None,
) -> Array:
    """`fp8` with a weight for each expert of a mixture: out[r] = fp8 of row rows[r] of x with the expert that has r.

    x        [T, K] u8, codes of `format`; contiguous; CPU or CUDA
    weight   [E, N, K] u8
    x_scale  [S, B] f32: S is 1 (tensor), T (token) or ceil(T / 128); B is 1 or ceil(K / 128), blocks b of columns
    w_scale  [E, S, B] f32: S is 1, N (channel) or ceil(N / 128)
    offsets  [E + 1] i32, from 0 to R, never falling: expert e has the rows offsets[e] to offsets[e + 1] - 1, or none
    format   "e4m3fn" or "e5m2"
    bias     [E, N] f32, or None
    rows     [R] i32, or None for those of x in their order: the row of x that meets each row of the result
    returns  [R, N] f32

    Scales follow the rows of x, wherever those go. Sums and bound are those of `fp8`, and a row does not depend on the
    others. Raises UnknownNameError (format), RangeError (offsets, and rows that x has not: on CUDA, where nobody waits
    to look, wrong offsets make the whole result NaN, and a wrong row its own; there also sizes from 2 ** 31 on),
    ShapeError, DtypeError, StrideError, DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> from subbyte.kernels import encode_minifloat
    >>> x = encode_minifloat(np.array([[1.0, -2.0], [3.0, 4.0]], np.float32), "e4m3fn")
    >>> one, scales = np.ones((1, 1), np.float32), np.float32([[[1.0]], [[0.5]]])
    >>> fp8_grouped(x, x.reshape(2, 1, 2), one, scales, np.int32([0, 1, 3]), rows=np.int32([1, 0, 1]))
    array([[-5. ],
           [-2.5],
           [12.5]], dtype=float32)
    """
    arrays = {
        "x": x,
        "weight": weight,
        "x_scale": x_scale,
        "w_scale": w_scale,
        "offsets": offsets,
        "bias": bias,
        "rows": rows,
    }
    return call("fp8_grouped", arrays, format=format)


def int4_fp8(
    x: Array,
    words: Array,
    x_scale: Array,
    w_scale: Array,
    group: int = -1,
    tensor_scale: float = 1.0,
    bias: Array | None = None,
) -> Array:
    """E4M3 activations times 4-bit weights: out = (x W^T) * x_scale * tensor_scale + bias, W = w_scale * (code - 8).

    x             [M, K] u8, codes of E4M3; contiguous; CPU or CUDA
    words         [N, ceil(K / 8)] i32: the codes of W, packed in "dense" order at 4 bits
    x_scale       [M] or [1] f32
    w_scale       [N, K / group] u8: codes of E4M3; or bf16, on the CPU also f32 or f16
    group         columns of W that share a scale, dividing K; on CUDA a multiple of 64 or all; -1: all
    tensor_scale  a normal number above 0: the inverse of the power of two that W was raised by before it was rounded
    bias          [N] f32, or None
    returns       [M, N] f32

    The product under FireQ (arXiv 2505.20839), whose own kernel rounds w_scale * code to E4M3 once more; here no
    weight is rounded. Sums are f32: off by at most about K * 2 ** -23 * sum|x W| |x_scale| tensor_scale. NaN and
    infinity spread. Does not depend on the number of threads. Raises RangeError (tensor_scale), ShapeError, DtypeError,
    StrideError, DeviceError; on CUDA also DriverError and DependencyError.

    >>> import numpy as np
    >>> from subbyte.kernels import encode_minifloat, pack
    >>> x = encode_minifloat(np.float32([[1, -2, 3, 4]]), "e4m3fn")
    >>> words, scale = pack(np.array([[8, 9, 10, 0]], np.uint8), bits=4), np.float32([[2, 0.5]])
    >>> int4_fp8(x, words, np.float32([0.25]), encode_minifloat(scale, "e4m3fn"), group=2)
    array([[-4.25]], dtype=float32)
    """
    arrays = {"x": x, "words": words, "x_scale": x_scale, "w_scale": w_scale, "bias": bias}
    return call("int4_fp8", arrays, group=group, tensor_scale=tensor_scale)


def block_scaled(
    x: Array,
    words: Array,
    scale: Array,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
) -> Array:
    """Activations times a weight of small floats or integers in blocks that share a scale: MXFP4, MXFP8, NVFP4, MXINT8.

    x             [..., K] f32, f16 or bf16, on CUDA f16 or bf16; contiguous; CPU or CUDA
    words         [N, ceil(K * bits / 32)] i32: the codes of `quantize_block`, packed in "dense" order at the bits of
                  `element`: 4, 6 or 8
    scale         [N, K / block] u8, the bits of the scales
    element       as in `quantize_block`, like `block` and `scale_dtype`
    tensor_scale  a normal number above 0
    returns       [..., N], dtype of x: x W^T, W[n, k] = code * scale * tensor_scale as `dequantize_block` gives it

    Sums are f32, rounded once at the end; what is too large for f16 becomes infinity. Off by at most about
    K * 2 ** -23 * sum|x W| before that. Does not depend on the number of threads. OCP MX 1.0. Raises UnknownNameError
    (element, scale_dtype), RangeError (block, tensor_scale), ShapeError, DtypeError, StrideError, DeviceError; on CUDA
    also DriverError and DependencyError.

    >>> import numpy as np
    >>> from subbyte.kernels import pack, quantize_block
    >>> codes, scale = quantize_block(np.repeat(np.float32([[1, -6]]), 16, axis=1), "e2m1")
    >>> block_scaled(np.ones((1, 32), np.float32), pack(codes, bits=4), scale, "e2m1")
    array([[-80.]], dtype=float32)
    """
    arrays = {"x": x, "words": words, "scale": scale}
    return call(
        "block_scaled", arrays, element=element, block=block, scale_dtype=scale_dtype, tensor_scale=tensor_scale
    )


def block_scaled_pair(
    x: Array,
    words: Array,
    x_scale: Array,
    w_scale: Array,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
) -> Array:
    """Activations times a weight, both of small floats or integers in blocks that share a scale: NVFP4, MXFP4, MXFP8.

    x             [M, ceil(K * bits / 32)] i32: the codes of `quantize_block`, packed in "dense" order at the bits of
                  `element`: 4, 6 or 8; CPU or CUDA, contiguous
    words         [N, ceil(K * bits / 32)] i32, those of the weight
    x_scale       [M, K / block] u8, the bits of the scales
    w_scale       [N, K / block] u8
    element       as in `quantize_block`, like `block` and `scale_dtype`; on CUDA "e2m1", with scales of E8M0 or, in
                  blocks of 16, E4M3, or "e4m3fn", "e5m2" or "int8"
    tensor_scale  a normal number above 0: that of x times that of the weight
    returns       [M, N] f32: X W^T * tensor_scale, X and W code * scale, as `dequantize_block` gives them

    Sums are f32. Off by at most about K * 2 ** -23 * sum|X W|; how tensor cores for blocks round, on sm_100 and sm_120,
    NVIDIA does not tell. Does not depend on the number of threads. OCP MX 1.0. Raises UnknownNameError (element,
    scale_dtype), RangeError (block, tensor_scale), ShapeError, DtypeError, StrideError, DeviceError; on CUDA also
    DriverError and DependencyError.

    >>> import numpy as np
    >>> from subbyte.kernels import pack, quantize_block
    >>> codes, scale = quantize_block(np.repeat(np.float32([[1, -6], [0.5, 2]]), 16, axis=1), "e2m1")
    >>> words = pack(codes, bits=4)
    >>> block_scaled_pair(words, words, scale, scale, "e2m1")
    array([[ 592., -184.],
           [-184.,   68.]], dtype=float32)
    """
    arrays = {"x": x, "words": words, "x_scale": x_scale, "w_scale": w_scale}
    return call(
        "block_scaled_pair", arrays, element=element, block=block, scale_dtype=scale_dtype, tensor_scale=tensor_scale
    )


def csr(x: Array, values: Array, columns: Array, pointers: Array, base: Array | None = None) -> Array:
    """Activations times a sparse weight in compressed rows, added to what a dense product gave: out = base + x S^T.

    x         [..., K] f32, f16 or bf16, on CUDA f16 or bf16; contiguous; CPU or CUDA
    values    [E] f32, f16 or bf16: the entries of S, row after row
    columns   [E] u16, or i32 where K is above 65536: the column of each entry
    pointers  [N + 1] i32, from 0 to E, never falling: row n has the entries pointers[n] to pointers[n + 1] - 1
    base      [..., N] f32, f16 or bf16, on CUDA the dtype of x, or None for zeros
    returns   [..., N], dtype of x

    Sums are f32, rounded once at the end; what is too large for f16 becomes infinity. Off by at most about
    E * 2 ** -24 * sum|x S|, E the entries of a row, before that rounding. Entries at one place add up. Does not depend
    on the number of threads. Raises RangeError (pointers, columns: on CUDA, where nobody waits to look, they make their
    results NaN instead), ShapeError, DtypeError, StrideError, DeviceError; on CUDA also DriverError and
    DependencyError.

    >>> import numpy as np
    >>> values, columns, pointers = np.float16([2, -1, 0.5]), np.uint16([0, 2, 1]), np.int32([0, 2, 2, 3])
    >>> csr(np.float32([[1, 4, 3]]), values, columns, pointers, np.float32([[10, 20, 30]]))
    array([[ 9., 20., 32.]], dtype=float32)
    """
    arrays = {"x": x, "values": values, "columns": columns, "pointers": pointers, "base": base}
    return call("csr", arrays)


def codebook_gemm(
    x: Array,
    words: Array,
    bits: int = 2,
    codebook: Array | None = None,
    residual: Array | None = None,
    outputs: int | None = None,
) -> Array:
    """Activations times a weight whose codes stand for vectors: out = x W^T.

    x         [..., K] f32, f16 or bf16, on CUDA f16 or bf16; contiguous; CPU or CUDA
    words     the codes of each strip of W, one dense bit stream padded to whole words, i32. E8P: [N, ceil(K bits /
              32)], a strip is a row, a code eight neighbouring columns. Tables: [ceil(N / v), ceil(K (b + r) / 32)], a
              strip is v neighbouring rows, a code one column of them
    bits      of a weight in E8P: 2, 3 or 4, codes as `e8p_encode` gives them, in 2, 3 or 4 bytes
    codebook  [G, 2 ** b or fewer, v] f32, f16 or bf16 (on CUDA: the dtype of x): codewords of G groups of K / G
              neighbouring columns; None: E8P
    residual  [G, 2 ** r or fewer, v], the same dtypes, or None: what the r bits above the first b add; b + r is at most
              32
    outputs   N, where v does not divide it; None: all rows of all strips
    returns   [..., N], dtype of x

    Values are those of `e8p_decode`, or the sum of both codewords; products are summed in f32 and rounded once at the
    end. Off by at most about K * 2 ** -23 * sum|x W| before that. Tseng et al., 2024 (QuIP#); Liu et al., 2024 (VPTQ).
    Does not depend on the number of threads. Raises RangeError (bits; a code without codeword: on CUDA, where nobody
    waits to look, it makes its results NaN instead), ShapeError, DtypeError, StrideError, DeviceError; on CUDA also
    DriverError and DependencyError.

    >>> import numpy as np
    >>> codebook = np.array([[[1.0, 2.0], [3.0, -4.0]]], np.float32)  # two outputs at a time, one bit a code
    >>> codebook_gemm(np.float32([[1, 10]]), np.array([[0b10]], np.int32), codebook=codebook)
    array([[ 31., -38.]], dtype=float32)
    """
    arrays = {"x": x, "words": words, "codebook": codebook, "residual": residual}
    return call("codebook_gemm", arrays, bits=bits, outputs=outputs)
