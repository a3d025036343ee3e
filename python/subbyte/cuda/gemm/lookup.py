"""16-bit floats times codes of the values of a table: cuda/gemm/lookup*.cu, of which the shape chooses one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, empty, exported, view
from subbyte.cuda.gemm.split import add, split
from subbyte.cuda.gemm.wna16 import MMA_BITS, MOST_FEW, THREADS, Tile, few, mma, plain
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError

__all__ = ["lookup"]


def lookup(x: Any, words: Any, scale: Any, table: Any, group: int = -1, *, stream: object = None) -> Any:
    """16-bit activations times codes of a table: y = x W^T, W = scale[n, g] * table[code[n, k]].

    x        [..., K] f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    words    [N, ceil(K * b / 32)] i32, codes in layout "dense"
    scale    [N, K / group], dtype of x
    table    [1, 2 ** b] or [N, 2 ** b], dtype of x; b is 1 to 8
    group    columns that share a scale, a divisor of K; -1: all K
    stream   as in `wna16`
    returns  [..., N], framework, dtype and device of x

    Tensor cores serve 2, 3, 4 and 8 bits in groups of a multiple of 32 or all of K: cuda/gemm/lookup_mma.cu, and for up
    to 16 rows cuda/gemm/lookup_few.cu; for the rest, and where a block may not have the shared memory that 256 values a
    column take, there is cuda/gemm/lookup.cu. Bounds: their heads. Raises as `wna16` does.
    """
    seen, others = view("x", x), (view("words", words), view("scale", scale), view("table", table))
    m, n, k, bits, group = check(seen, *others, group)
    own = others[2].shape[0] > 1
    y = empty(x, seen.framework, (*seen.shape[:-1], n))
    if m == 0 or n == 0:
        return y
    entry, tile = choose(m, k, bits, group, seen.dtype, own, driver.shared_memory(seen.device))
    result, blocks = exported("y", y), math.ceil(m / tile.rows) * math.ceil(n / tile.columns)
    arrays: list[View | None] = [seen, *others, result]
    numbers, slices, parts = [m, n, k, group], 1, None
    if tile.depth:
        slices, depth = split(blocks, k, driver.multiprocessors(seen.device), tile.depth)
        if slices > 1:
            parts = exported("parts", empty(x, seen.framework, (slices, m, n), "float32"))
        arrays.append(parts)
        numbers.append(depth)
    else:
        numbers.append(2**bits if own else 0)
    start(tile.kernel, entry, seen, (blocks, slices), THREADS, arrays, numbers, shared=tile.shared(m), stream=stream)
    if parts is not None:
        add(parts, result, stream)
    return y


def check(x: View, words: View, scale: View, table: View, group: int) -> tuple[int, int, int, int, int]:
    """M, N, K, bits and group of arguments that fit together; raises what lookup raises."""
    x.expect("f16", "bf16")
    words.expect("i32", beside=x)
    scale.expect(x.dtype, beside=x)
    table.expect(x.dtype, beside=x)
    if not x.shape:
        raise ShapeError("x", "a scalar", "[..., K]")
    if len(words.shape) != 2:
        raise ShapeError("words", words.shape, "[N, ceil(K * bits / 32)]")
    k, n, m = x.shape[-1], words.shape[0], math.prod(x.shape[:-1])
    values = table.shape[-1] if len(table.shape) == 2 else 0
    if values not in (2, 4, 8, 16, 32, 64, 128, 256) or table.shape[0] not in (1, n):
        raise ShapeError("table", table.shape, f"[1, 2 ** bits] or [{n}, 2 ** bits] for 1 to 8 bits")
    bits = values.bit_length() - 1
    if group == -1:
        group = max(k, 1)
    if group < 1 or k % group:
        raise ShapeError("group", group, f"a divisor of K = {k}, or -1 for all of it")
    for given, expected in ((words, (n, (k * bits + 31) // 32)), (scale, (n, k // group))):
        if given.shape != expected:
            raise ShapeError(given.what, given.shape, f"{expected} for K = {k}, {bits} bits, groups of {group}")
    if max(m, n, k, math.ceil(m / 16) * math.ceil(n / 32)) >= 2**31:
        raise RangeError("x and words", f"M, N, K = {m}, {n}, {k}", "each, and the tiles of the result, below 2^31")
    return m, n, k, bits, group


def choose(m: int, k: int, bits: int, group: int, dtype: str, own: bool, room: int) -> tuple[str, Tile]:
    """The entry for a shape, and its tile; `room`: bytes of shared memory that a block may have."""
    kind, wide = "own" if own else "one", group % 128 == 0 or group == k
    if bits in MMA_BITS and m <= MOST_FEW and (wide or (bits % 4 == 0 and group % 32 == 0)):
        tokens = 8 if m <= 8 else 16
        tile = with_table("lookup_few", few(tokens, bits), bits, own)
        return f"lookup_few_w{bits}_{dtype}_e{4 if wide else 1}_{kind}_m{tokens}", tile
    if bits in MMA_BITS and (group % 32 == 0 or group == k):
        tile = with_table("lookup_mma", mma(64, bits), bits, own)
        if tile.shared(m) <= room:
            return f"lookup_mma_w{bits}_{dtype}_{kind}", tile
    return f"lookup_w{bits}_{dtype}", replace(plain(), kernel="lookup")


def with_table(kernel: str, tile: Tile, bits: int, own: bool) -> Tile:
    """The tile of that kernel, with shared memory for a table too: `Table::BYTES` in cuda/common/table.cuh."""
    pairs = 2 * bits if bits <= 4 else bits
    table, rest = (2 * tile.columns << bits) if own else (8 * 4 << pairs), tile.shared
    return replace(tile, kernel=kernel, shared=lambda m: table + rest(m))
