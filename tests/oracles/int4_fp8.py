"""Codes of both operands one by one, from their definitions; products, sums and scales in f64, rounded once."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.decode_minifloat import magnitude
from tests.oracles.fp8 import codes

#: The value of each code of E4M3.
E4M3 = np.array([(-1) ** (code >> 7) * magnitude(code & 127, "e4m3fn") for code in range(256)])


def weights(words: np.ndarray, w_scale: np.ndarray, cols: int, group: int) -> np.ndarray:
    """w_scale * (code - 8) in f64, from the bits of each row."""
    scale = E4M3[w_scale] if w_scale.dtype == np.uint8 else w_scale.astype(np.float64)
    weight = np.zeros((len(words), cols))
    for n, row in enumerate(words.tolist()):
        stream = sum((word % 2**32) << (32 * i) for i, word in enumerate(row))
        for k in range(cols):
            weight[n, k] = scale[n, k // group] * ((stream >> (4 * k)) % 16 - 8)
    return weight


def int4_fp8(
    x: np.ndarray,
    words: np.ndarray,
    x_scale: np.ndarray,
    w_scale: np.ndarray,
    group: int = -1,
    tensor_scale: float = 1.0,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """(x W^T) * x_scale * tensor_scale + bias."""
    depth = x.shape[1]
    with np.errstate(invalid="ignore"):
        total = E4M3[x] @ weights(words, w_scale, depth, depth if group == -1 else group).T
        total = total * x_scale[:, None] * np.float32(tensor_scale)
    return (total + (0 if bias is None else bias)).astype(np.float32)


def case(
    rows: int,
    cols: int,
    depth: int,
    group: int = -1,
    scales: str = "u1",
    many: bool = True,
    biased: bool = False,
    tensor_scale: float = 2.0**-5,
    whole: bool = False,
) -> Case:
    """Every code that is a number; `scales`: NumPy's name of the dtype of w_scale; `many`: an x_scale for each row.

    whole  as for the cases of fp8, of x
    """
    random = np.random.default_rng([rows, cols, depth])
    x = codes(random, (rows, depth), "e4m3fn", whole)
    words = random.integers(0, 2**32, (cols, -(-depth // 8)), np.uint32)
    if depth % 8 and depth:
        words[:, -1] &= np.uint32((1 << 4 * (depth % 8)) - 1)
    shape = cols, depth // (max(depth, 1) if group == -1 else group)
    if scales == "u1":
        w_scale = random.integers(1, 0x48, shape).astype(np.uint8)  # up to 4, subnormals among them
    else:
        w_scale = random.uniform(1e-3, 1, shape).astype(scales)
    x_scale = random.uniform(1e-4, 1e-2, rows if many else 1).astype(np.float32)
    bias = random.standard_normal(cols).astype(np.float32) if biased else None
    args, limit = (x, words.view(np.int32), x_scale, w_scale), 0.0
    if rows * cols * depth < 1 << 20:
        weight = abs(weights(args[1], w_scale, depth, depth if group == -1 else group))
        size = abs(E4M3[x]) @ weight.T * x_scale[:, None] * tensor_scale
        # K + 6 roundings of f32, twice as wide where a tensor core adds; then that of the bias and of the oracle
        limit = (depth + 8) * 2.0**-23 * float(size.max(initial=0)) + (2.0**-20 if biased else 0.0)
    name = f"{rows}x{cols}x{depth}-g{group}-{scales}{'' if many else '-one'}{'-bias' * biased}{'-whole' * whole}"
    moved = x.size + words.nbytes + w_scale.nbytes + 4 * rows * cols
    options = {"group": group, "tensor_scale": tensor_scale, "bias": bias}
    return Case(name, args, options, int4_fp8, limit, moved, 2 * rows * cols * depth)


def cut_bound(given: Case) -> float:
    """The bound where wgmma sums, with numbers cut behind 13 bits of fraction (cuda/common/wgmma.cuh).

    As in that of fp8, of 64 columns: 67 cuts, and 68 / 67 for those before.
    """
    (x, words, x_scale, w_scale), (group, tensor_scale, _) = given.args, given.kwargs.values()
    depth = x.shape[1]
    sizes = np.where(E4M3 == 0, 0, np.maximum(abs(E4M3), 2.0**-6))
    weight = abs(weights(words, w_scale, depth, depth if group == -1 else group))
    size = sizes[x] @ weight.T * x_scale[:, None] * tensor_scale
    return given.bound + 68 * 2.0**-13 * float(size.max(initial=0))


def cases() -> list[Case]:
    """Sizes around the tiles, groups that tiles split and that span them, scales of each dtype."""
    shapes = [(1, 1, 1, -1), (3, 5, 17, -1), (2, 3, 128, 64), (17, 129, 192, 64), (65, 3, 384, 128), (9, 2, 100, 20)]
    found = [case(*shape, scales, biased=shape[0] % 2 == 0) for shape in shapes for scales in ("u1", "f2", "f4")]
    found += [case(5, 9, 256, 256, many=False), case(2, 7, 200, -1, biased=True)]
    return [*found, case(0, 3, 64, 64), case(3, 0, 64, 64), case(2, 3, 0, biased=True)]


def large(rows: int, cols: int, depth: int) -> Case:
    """For the bench: groups of 128, as FireQ has them."""
    return case(rows, cols, depth, 128)
