"""One small valid call of every kernel, for tests of what all kernels have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Call:
    """Arguments of a kernel: its arrays by name, the first of them the largest, and its other options."""

    arrays: Mapping[str, np.ndarray]
    options: Mapping[str, object] = field(default_factory=dict)
    any_axes: bool = False
    empty: Mapping[str, tuple[int, ...]] | None = None

    def without_rows(self) -> dict[str, np.ndarray]:
        """The arrays of a call that has nothing to do, of the shapes in `empty`."""
        return {name: np.zeros(shape, self.arrays[name].dtype) for name, shape in (self.empty or {}).items()}


def calls() -> dict[str, Call]:
    """By the kernel's name; every array has axes longer than one, so that strides matter."""
    random = np.random.default_rng(0)
    x = random.standard_normal((6, 64)).astype(np.float32)
    codes = random.integers(0, 16, (6, 64), np.uint8)
    scale = random.uniform(0.5, 1, (6, 2)).astype(np.float32)
    zero = random.integers(0, 16, (6, 2), np.uint8)
    bytes_of_scales = random.integers(100, 150, (6, 2), np.uint8)
    words = random.integers(-(2**31), 2**31, (6, 8)).astype(np.int32)
    gram = (x.T @ x).astype(np.float32)
    factor = np.triu(np.ones((64, 64), np.float32))
    integers = random.integers(-128, 128, (5, 64)).astype(np.int8)
    g32 = {"bits": 4, "group": 32}
    none = {"scale": (0, 2), "zero": (0, 2)}
    return {
        "pack": Call({"codes": codes}, {"bits": 4}, empty={"codes": (0, 64)}),
        "unpack": Call({"words": words}, {"bits": 4, "cols": 64}, empty={"words": (0, 8)}),
        "encode_minifloat": Call({"x": x}, {"format": "bf16"}, any_axes=True, empty={"x": (0, 3)}),
        "decode_minifloat": Call({"codes": codes}, {"format": "e4m3fn"}, any_axes=True, empty={"codes": (3, 0)}),
        "quantize_block": Call({"x": x}, {"element": "e2m1"}, empty={"x": (0, 64)}),
        "dequantize_block": Call(
            {"codes": codes, "scale": bytes_of_scales},
            {"element": "e2m1"},
            empty={"codes": (0, 64), "scale": (0, 2)},
        ),
        "fit_affine": Call({"x": x}, g32, empty={"x": (0, 64)}),
        "quantize_affine": Call({"x": x, "scale": scale, "zero": zero}, g32, empty={"x": (0, 64), **none}),
        "quantize_symmetric": Call({"x": x, "scale": scale}, {"group": 32}, empty={"x": (0, 64), "scale": (0, 2)}),
        "dequantize_affine": Call(
            {"codes": codes, "scale": scale, "zero": zero}, {"group": 32}, empty={"codes": (0, 64), **none}
        ),
        "quantize_table": Call(
            {"x": x, "scale": scale, "bounds": np.sort(x[:, :15], axis=1)},
            {"group": 32},
            empty={"x": (0, 64), "scale": (0, 2), "bounds": (0, 15)},
        ),
        "dequantize_table": Call(
            {"codes": codes, "scale": scale, "table": x[:, :16].copy()},
            {"group": 32},
            empty={"codes": (0, 64), "scale": (0, 2), "table": (0, 16)},
        ),
        "quantize_tokens": Call({"x": x}, empty={"x": (0, 64)}),
        "norm_quantize": Call(
            {"x": x, "weight": x[0].copy(), "bias": x[1].copy()},
            {"norm": "layer", "format": "e4m3fn"},
            empty={"x": (0, 64), "weight": (64,), "bias": (64,)},
        ),
        "search_clip": Call(
            {"weight": x, "gram": np.stack([gram[:32, :32], gram[32:, 32:]])},
            g32,
            empty={"weight": (0, 64), "gram": (2, 32, 32)},
        ),
        "hadamard": Call({"x": x}, any_axes=True, empty={"x": (0, 64)}),
        "hadamard_quantize": Call({"x": x, "signs": np.sign(x[0])}, empty={"x": (0, 64), "signs": (64,)}),
        "accumulate_gram": Call({"gram": gram, "x": x}, empty={"gram": (64, 64), "x": (0, 64)}),
        "inverse_factor": Call({"hessian": gram}, {"damp": 1.0}, empty={"hessian": (0, 0)}),
        "coordinate_descent": Call(
            {
                "weight": x,
                "hessian": gram,
                "scale": scale,
                "zero": zero,
                "index": np.repeat(np.arange(2, dtype=np.int32), 32),
                "start": x * np.float32(0.5),
            },
            {"bits": 4, "sweeps": 6},
        ),
        "bilevel": Call(
            {"weight": x, "factor": factor, "mask": (codes > 13).astype(np.uint8)}, {"bits": 3, "group": 16, "run": 3}
        ),
        "half_quadratic": Call({"weight": x}, {**g32, "steps": 3, "stop": False}),
        "gptq": Call(
            {
                "weight": x,
                "factor": factor,
                "scale": scale,
                "zero": zero,
                "index": np.repeat(np.arange(2, dtype=np.int32), 32),
            },
            {"bits": 4},
        ),
        "codebook_descent": Call(
            {
                "weight": x,
                "hessian": gram,
                "codes": codes[:2].astype(np.int32) % 16,
                "codebook": x[:2].reshape(2, 16, 4).copy(),
                "residual": x[2:3].reshape(2, 8, 4).copy(),
                "beside": x * np.float32(0.5),
            },
            {"sweeps": 2, "block": 24},
        ),
        "gptq_codebook": Call(
            {
                "weight": x,
                "factor": factor,
                "codebook": x[:2].reshape(2, 16, 4).copy(),
                "residual": x[2:3].reshape(2, 8, 4).copy(),
            },
            {"block": 24},
        ),
        "ldlq": Call(
            {"weight": x, "hessian": gram + np.eye(64, dtype=np.float32), "start": x * np.float32(0.5)},
            {"bits": 2, "codewords": "e8p", "sweeps": 2},
            empty={"weight": (0, 64), "hessian": (64, 64), "start": (0, 64)},
        ),
        "min_max": Call(
            {
                "a": x,
                "b": x @ x.T,
                "levels": np.tile(np.float32([[-1.5, -0.5, 0.5, 1.5]]), (len(x), 1)),
                "codes": (codes % 4).astype(np.uint8),
                "frozen": (codes > 12).astype(np.uint8),
                "gram": 2 * gram,
                "pull": 2 * x @ gram,
            },
            {"iterations": 2},
            empty={
                "a": (5, 64),
                "b": (0, 5),
                "levels": (0, 4),
                "codes": (0, 64),
                "frozen": (0, 64),
                "gram": (64, 64),
                "pull": (0, 64),
            },
        ),
        "nearest_codeword": Call(
            {"x": x, "codebook": x[:5].copy(), "weights": np.abs(x)},
            empty={"x": (0, 64), "codebook": (5, 64), "weights": (0, 64)},
        ),
        "kmeans": Call({"x": x, "weights": np.abs(x), "start": x[2:5].copy()}, {"k": 3}),
        "e8p_encode": Call({"x": x}, empty={"x": (0, 64)}),
        "e8p_decode": Call({"codes": codes.astype(np.uint16) * 4097}, empty={"codes": (0, 8)}),
        "product_encode": Call(
            {"x": x, "codebooks": x[:4].reshape(8, 4, 8).copy()}, empty={"x": (0, 64), "codebooks": (8, 4, 8)}
        ),
        "product_decode": Call(
            {"codes": np.tile(codes[:, :2], (50, 1)), "codebooks": x[:2, :48].reshape(2, 16, 3).copy()},
            empty={"codes": (0, 2), "codebooks": (2, 16, 3)},
        ),
        "product_scan": Call(
            {"tables": x.reshape(6, 4, 16), "blocks": np.tile(codes, (4, 1)).reshape(24, 4, 16)},
            {"rows": 750},
            empty={"tables": (0, 4, 16), "blocks": (24, 4, 16)},
        ),
        "wna16": Call(
            {
                "x": x,
                "words": words,
                "scale": scale,
                "zero": zero,
                "order": np.arange(63, -1, -1, dtype=np.int32),
            },
            g32,
            any_axes=True,
            empty={"x": (0, 64), "words": (6, 8), "scale": (6, 2), "zero": (6, 2), "order": (64,)},
        ),
        "wna16_by_input": Call(
            {"x": x, "words": words, "scale": x[:2] ** 2, "zero": codes[:2].copy()},
            {"bits": 4, "group": 3},
            any_axes=True,
            empty={"x": (0, 64), "words": (6, 8), "scale": (2, 64), "zero": (2, 64)},
        ),
        "wna16_grouped": Call(
            {
                "x": x,
                "words": words.reshape(2, 3, 8),
                "scale": scale.reshape(2, 3, 2),
                "zero": zero.reshape(2, 3, 2),
                "offsets": np.array([0, 2, 7], np.int32),
                "rows": np.array([5, 0, 1, 2, 2, 4, 3], np.int32),
            },
            g32,
            empty={
                "x": (0, 64),
                "words": (2, 3, 8),
                "scale": (2, 3, 2),
                "zero": (2, 3, 2),
                "offsets": (3,),
                "rows": (0,),
            },
        ),
        "lookup": Call(
            {"x": x, "words": words, "scale": scale, "table": x[:, :16].copy()},
            {"group": 32},
            any_axes=True,
            empty={"x": (0, 64), "words": (6, 8), "scale": (6, 2), "table": (6, 16)},
        ),
        "block_scaled": Call(
            {"x": x, "words": words, "scale": bytes_of_scales},
            {"element": "e2m1"},
            any_axes=True,
            empty={"x": (0, 64), "words": (6, 8), "scale": (6, 2)},
        ),
        "block_scaled_pair": Call(
            {
                "x": words,
                "words": words[::-1].copy(),
                "x_scale": bytes_of_scales,
                "w_scale": bytes_of_scales[::-1].copy(),
            },
            {"element": "e2m1"},
            empty={"x": (0, 8), "words": (6, 8), "x_scale": (0, 2), "w_scale": (6, 2)},
        ),
        "codebook_gemm": Call(
            {
                "x": x,
                "words": words,
                "codebook": x[:4].reshape(2, 16, 8).copy(),
                "residual": x[:2, :8].reshape(2, 1, 8).copy(),
            },
            any_axes=True,
            empty={"x": (0, 64), "words": (6, 8), "codebook": (2, 16, 8), "residual": (2, 1, 8)},
        ),
        "csr": Call(
            {
                "x": x,
                "values": x[0, :40].astype(np.float16),
                "columns": codes[0, :40].astype(np.uint16),
                "pointers": np.arange(0, 41, 10, dtype=np.int32),
                "base": x[:, :4].copy(),
            },
            any_axes=True,
            empty={"x": (0, 64), "values": (0,), "columns": (0,), "pointers": (5,), "base": (0, 4)},
        ),
        "w4a4": Call(
            {
                "x": words[:5].copy(),
                "words": words,
                "x_scale": scale[:5].copy(),
                "w_scale": scale,
                "x_outliers": integers[:, :3].copy(),
                "w_outliers": codes[:, :3].astype(np.int8),
                "x_outlier_scale": scale[:5, 0].copy(),
                "w_outlier_scale": scale[:, 1].copy(),
                "bias": x[0, :6].copy(),
            },
            {"group": 32},
            empty={
                "x": (0, 8),
                "words": (6, 8),
                "x_scale": (0, 2),
                "w_scale": (6, 2),
                "x_outliers": (0, 3),
                "w_outliers": (6, 3),
                "x_outlier_scale": (0,),
                "w_outlier_scale": (6,),
                "bias": (6,),
            },
        ),
        "w4a8": Call(
            {
                "x": integers,
                "words": words,
                "x_scale": scale[:5, 0].copy(),
                "w_scale": scale[:, 1].copy(),
                "level": zero // 2 + 1,
                "zero": zero,
                "bias": x[0, :6].copy(),
            },
            {"group": 32},
            empty={
                "x": (0, 64),
                "words": (6, 8),
                "x_scale": (1,),
                "w_scale": (6,),
                "level": (6, 2),
                "zero": (6, 2),
                "bias": (6,),
            },
        ),
        "w8a8": Call(
            {
                "x": integers,
                "weight": integers[:3],
                "x_scale": scale[:5, 0].copy(),
                "w_scale": scale[:3, 1].copy(),
                "bias": x[0, :3].copy(),
            },
            empty={"x": (0, 64), "weight": (3, 64), "x_scale": (1,), "w_scale": (3,)},
        ),
        "fp8": Call(
            {
                "x": random.integers(0, 64, (6, 130), np.uint8),
                "weight": random.integers(0, 64, (3, 130), np.uint8),
                "x_scale": scale,
                "w_scale": scale[:3].copy(),
                "bias": x[0, :3].copy(),
            },
            empty={"x": (0, 130), "weight": (3, 130), "x_scale": (1, 2), "w_scale": (3, 2)},
        ),
        "int4_fp8": Call(
            {
                "x": random.integers(0, 64, (5, 64), np.uint8),
                "words": words,
                "x_scale": scale[:5, 0].copy(),
                "w_scale": bytes_of_scales // 2,
                "bias": x[0, :6].copy(),
            },
            {"group": 32},
            empty={"x": (0, 64), "words": (6, 8), "x_scale": (1,), "w_scale": (6, 2), "bias": (6,)},
        ),
        "fp8_grouped": Call(
            {
                "x": random.integers(0, 64, (6, 130), np.uint8),
                "weight": random.integers(0, 64, (2, 3, 130), np.uint8),
                "x_scale": scale,
                "w_scale": scale.reshape(2, 3, 2),
                "offsets": np.array([0, 2, 7], np.int32),
                "bias": x[:2, :3].copy(),
                "rows": np.array([5, 0, 1, 2, 2, 4, 3], np.int32),
            },
            empty={
                "x": (0, 130),
                "weight": (2, 3, 130),
                "x_scale": (1, 2),
                "w_scale": (2, 3, 2),
                "offsets": (3,),
                "bias": (2, 3),
                "rows": (0,),
            },
        ),
    }
