"""Casts between f32 and narrower floats, and blocks of them (or of integers) that share a scale of one byte.

Codes are bytes (16-bit floats: u16) that any framework can hold, one an element. `element` names what the codes of a
block are: the floats "e2m1", "e2m3", "e3m2", "e4m3fn", "e5m2" (as in `encode_minifloat`), or "int8", "int6", "int4",
plain integers in two's complement of so many bits. MXFP4 is e2m1 in blocks of 32 with scales e8m0, MXINT8 int8 so
(OCP's own int8 means code / 64: its scales are 6 higher), NVFP4 e2m1 in blocks of 16 with scales e4m3fn.
"""

from __future__ import annotations

from subbyte.kernels._array import Array, call


def encode_minifloat(x: Array, format: str, saturate: bool = True, rounding: str = "even", seed: int = 0) -> Array:
    """Rounds to a narrower float, to nearest, ties to even, or as said, and returns its bits.

    x         [...] f32, f16 or bf16; CPU, contiguous
    format    OCP floats: "e4m3fn" (largest 448, no infinity), "e5m2" (57344), "e3m2" (28), "e2m3" (7.5), "e2m1" (6);
              OCP scales: "e8m0"; "bf16", "f16" (65504); OliVe's outliers, "abfloat_e2m1" (2 + m) 2 ** e (3 to 24),
              "abfloat_e2m5" (32 + m) 2 ** e (33 to 504), "abfloat_e4m3" (8 + m) 2 ** e (9 to 491520): its adaptive bias
              is a power of two in the scale of x
    saturate  infinity and what rounds beyond the largest finite value become that value; else infinity (e4m3fn, e8m0:
              NaN); below 8 bits and for abfloat always
    rounding  "even": to nearest, ties to the even code; "away": ties away from zero (microxcaling, CUDA's round); "up":
              ties to the larger (OliVe); "zero": down to the smaller magnitude; "stochastic": to the larger magnitude
              with a probability of the distance from the smaller, in 2 ** -24 of that between the two, rounded down
    seed      of stochastic rounding, 0 or above: the random number belongs to a seed and an element's place in x, so
              that neither path nor threads change a code
    returns   [...] u8 or u16, one code an element, bits above those of the format zero

    NaN becomes the quiet NaN of the format with its sign, zeros keep their sign, subnormals are exact. Formats below 8
    bits and abfloat have no NaN: it becomes the largest value, with its sign. "e8m0" is 2 ** (code - 127) and has
    neither zero nor sign: the sign is dropped, ties (1.5 of a power) go up for "even", 0 and what rounds below the
    smallest become that. Nor has abfloat a zero, whose codes mark what is no outlier: the smallest value stands for it.
    Every path gives the same bits. NF4 is a table: `quantize_table` with the bounds of `schemes.Table("nf4")`. Raises
    UnknownNameError (format, rounding), RangeError (seed), DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> encode_minifloat(np.array([1.0, -0.0, 1e9], np.float32), "e4m3fn")
    array([ 56, 128, 126], dtype=uint8)
    """
    return call("encode_minifloat", {"x": x}, format=format, saturate=saturate, rounding=rounding, seed=seed)


def decode_minifloat(codes: Array, format: str) -> Array:
    """The value of each code, exactly.

    codes    [...] u8, or u16 for "bf16" and "f16"; CPU, contiguous; bits above those of the format count for nothing
    format   as in `encode_minifloat`
    returns  [...] f32; NaN becomes the quiet NaN of f32, with its sign; the code that abfloat keeps free 2 ** m, with m
             bits of a mantissa

    Raises UnknownNameError (format), DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> decode_minifloat(np.array([56, 126, 1], np.uint8), "e4m3fn")
    array([1.000000e+00, 4.480000e+02, 1.953125e-03], dtype=float32)
    """
    return call("decode_minifloat", {"codes": codes}, format=format)


def quantize_block(
    x: Array,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    rule: str = "floor",
    tensor_scale: float = 1.0,
    rounding: str = "even",
) -> tuple[Array, Array]:
    """Small floats or integers whose scale each `block` consecutive columns share: x ~ code * scale * tensor_scale.

    x             [R, C] f32, f16 or bf16; CPU, contiguous
    element       what a code is (above), of largest value M and largest exponent E = floor(log2 M)
    block         16 or 32, which divides C
    scale_dtype   "e8m0": the power of two that `rule` makes of a = max|x|, held to 2 ** -127 .. 2 ** 127; "e4m3fn":
                  a / M / tensor_scale, rounded to nearest, at most 448
    rule          for e8m0: "floor" (OCP) 2 ** (floor(log2 a) - E); "ceil" 2 ** (ceil(log2 a) - E); "even" as floor, of
                  a with its mantissa rounded to the element's, ties up; "round" 2 ** rint(log2(a / M));
                  "rceil" (Blackwell) the next power from a / M, so that nothing saturates; "thirds" 2 ** floor(log2 a),
                  for e2m1 and values code * scale / 3: dequantize with tensor_scale = 1 / 3
    tensor_scale  for e4m3fn: max|x| of the whole tensor / (448 M) uses the range of the scales; a normal number above 0
    rounding      of the codes: "even", to nearest, ties to the even code; "away", ties away from zero (microxcaling's
                  "nearest"); "zero", down to the smaller magnitude (its "floor")
    returns       codes [R, C] u8, bits above the element's zero; scale [R, C / block] u8, the bits of each scale

    Codes are x / (scale * tensor_scale), rounded and saturated; integers never take the lowest code.
    All in f32, each operation rounded once. A block of zeros has the smallest scale (e4m3fn: 0, which any block gets
    whose scale rounds to it, with codes 0). A block with NaN or infinity gets the scale NaN and codes 0. Every path
    gives the same bits. Raises UnknownNameError (element, scale_dtype, rule, rounding), RangeError (block,
    tensor_scale, thirds beside other elements), ShapeError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> x = np.repeat(np.float32([[0.25, -1.0, 3.0, 7.0]]), 4, axis=1)
    >>> quantize_block(x, "e2m1", block=16)[1]  # 2 ** 0: of 7, the 1 is lost
    array([[127]], dtype=uint8)
    >>> codes, scale = quantize_block(x, "int4", block=16, scale_dtype="e4m3fn")
    >>> dequantize_block(codes, scale, "int4", block=16, scale_dtype="e4m3fn")[0, ::4]
    array([ 0., -1.,  3.,  7.], dtype=float32)
    """
    codes, scale = call(
        "quantize_block",
        {"x": x},
        element=element,
        block=block,
        scale_dtype=scale_dtype,
        rule=rule,
        tensor_scale=tensor_scale,
        rounding=rounding,
    )
    return codes, scale


def dequantize_block(
    codes: Array,
    scale: Array,
    element: str,
    block: int = 32,
    scale_dtype: str = "e8m0",
    tensor_scale: float = 1.0,
) -> Array:
    """The values of blocks: code * scale * tensor_scale, in that order, in f32.

    codes         [R, C] u8; CPU, contiguous; bits above those of the element count for nothing
    scale         [R, C / block] u8, the bits of the scales
    element       as in `quantize_block`, like `block` and `scale_dtype`
    tensor_scale  a normal number above 0
    returns       [R, C] f32

    A scale NaN makes its block NaN. Every path gives the same bits, but for the sign of NaN. Raises UnknownNameError
    (element, scale_dtype), RangeError (block, tensor_scale), ShapeError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> dequantize_block(np.full((1, 16), 7, np.uint8), np.uint8([[128]]), "e2m1", block=16)[0, :2]
    array([12., 12.], dtype=float32)
    """
    return call(
        "dequantize_block",
        {"codes": codes, "scale": scale},
        element=element,
        block=block,
        scale_dtype=scale_dtype,
        tensor_scale=tensor_scale,
    )
