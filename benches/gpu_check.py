"""The CUDA kernels on the card of this machine: first the tests against NumPy, then each one beside its peers.

    make gpu-check        # or: python -m benches.gpu_check

Needs an NVIDIA driver and a torch that sees the card. Times are CUDA events around one call, the median of many; cold
calls find L2 filled with something else, warm ones what the call before left there. Writes benches/results/<card>.json
and, for each shape, the fastest tile and slices of K into the table of choices (subbyte/cuda/gemm/tuned.py).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from subbyte import cuda, kernels
from subbyte.cuda import driver
from subbyte.cuda.gemm import tuned
from subbyte.errors import SubbyteError

ROOT = Path(__file__).resolve().parents[1]
FLUSH = 256 << 20  # bytes, more than any L2
CALLS = 30
#: Of K, to be tried.
SLICES = (1, 2, 4, 8, 16)
#: Rows of activations, of decoding and of prefill; N and K of a layer of 8 and of 70 billion parameters.
TOKENS = (1, 16, 64, 256, 4096)
LAYERS = ((4096, 4096), (28672, 8192))


@dataclass(frozen=True)
class Contestant:
    """One way to do a thing: `call` does it once; it moves at least `bytes` and computes `flops`."""

    kernel: str
    who: str
    shape: str
    call: Callable[[], object]
    bytes: int
    flops: int


@dataclass(frozen=True)
class Row:
    """What was measured; times in microseconds, rates of the cold call."""

    kernel: str
    who: str
    shape: str
    cold_us: float
    warm_us: float
    gb_per_s: float
    tflops: float

    @classmethod
    def of(cls, given: Contestant, cold_us: float, warm_us: float) -> Row:
        """Rates from sizes and times."""
        rates = round(given.bytes / cold_us / 1e3, 1), round(given.flops / cold_us / 1e6, 2)
        return cls(given.kernel, given.who, given.shape, round(cold_us, 2), round(warm_us, 2), *rates)


def slug(card: str) -> str:
    """The card's name as that of a file: "NVIDIA H100 80GB HBM3" gives "nvidia-h100-80gb-hbm3"."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


def wna16(m: int, n: int, k: int, bits: int, group: int) -> Iterator[Contestant]:
    """Low-bit weights beside the same weights in f16."""
    x = torch.randn(m, k, dtype=torch.float16, device="cuda")
    words = torch.randint(-(2**31), 2**31, (n, k * bits // 32), dtype=torch.int32, device="cuda")
    scale = torch.rand(n, k // group, dtype=torch.float16, device="cuda")
    wide = torch.randn(n, k, dtype=torch.float16, device="cuda")
    shape, flops = f"{m}x{n}x{k} w{bits} g{group}", 2 * m * n * k
    moved = n * k * bits // 8 + 2 * (scale.numel() + m * (n + k))
    yield Contestant("wna16", "subbyte", shape, lambda: kernels.wna16(x, words, scale, None, bits, group), moved, flops)
    order = torch.randperm(k, dtype=torch.int32, device="cuda")
    ordered = x, words, scale, None, bits, group, order
    yield Contestant("wna16", "subbyte, act-order", shape, lambda: kernels.wna16(*ordered), moved + 4 * k, flops)
    whole = 2 * (n * k + m * (n + k))
    yield Contestant("wna16", "torch f16 matmul", shape, lambda: x @ wide.T, whole, flops)


def routed(m: int, experts: int, chosen: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each token with some experts at random: how many rows an expert has, whose they are, and where they begin."""
    choice = torch.stack([torch.randperm(experts, device="cuda")[:chosen] for _ in range(m)]).ravel()
    counts, rows = torch.bincount(choice, minlength=experts), torch.argsort(choice, stable=True).int() // chosen
    return counts, rows, torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()


def wna16_grouped(m: int, n: int, k: int, experts: int, chosen: int) -> Iterator[Contestant]:
    """4-bit experts, each token with some at random, beside one product of as many rows with the weight of one."""
    x = torch.randn(m, k, dtype=torch.float16, device="cuda")
    words = torch.randint(-(2**31), 2**31, (experts, n, k // 8), dtype=torch.int32, device="cuda")
    scale = torch.rand(experts, n, k // 128, dtype=torch.float16, device="cuda")
    counts, rows, offsets = routed(m, experts, chosen)
    shape, flops, outer = f"{m}x{n}x{k} {chosen} of {experts}", 2 * m * chosen * n * k, 2 * m * chosen * (n + k)
    one, used = n * k // 2 + 2 * n * k // 128, int((counts > 0).sum())
    given, gathered = (x, words, scale, None, offsets, 4, 128, rows), x[rows].contiguous()
    ours = lambda: kernels.wna16_grouped(*given)  # noqa: E731
    yield Contestant("wna16_grouped", "subbyte", shape, ours, used * one + outer, flops)
    dense = lambda: kernels.wna16(gathered, words[0], scale[0], None, 4, 128)  # noqa: E731
    yield Contestant("wna16_grouped", "subbyte wna16, one weight", shape, dense, one + outer, flops)


def lookup(m: int, n: int, k: int, bits: int, own: bool) -> Iterator[Contestant]:
    """Codes of a table for all outputs, or of one for each, beside the same weights in f16."""
    x, wide = (torch.randn(rows, k, dtype=torch.float16, device="cuda") for rows in (m, n))
    words = torch.randint(-(2**31), 2**31, (n, k * bits // 32), dtype=torch.int32, device="cuda")
    scale = torch.rand(n, k // 64, dtype=torch.float16, device="cuda")
    table = torch.randn(n if own else 1, 2**bits, dtype=torch.float16, device="cuda")
    shape, flops, outer = f"{m}x{n}x{k} w{bits}{' own' * own}", 2 * m * n * k, 2 * m * (n + k)
    moved = n * k * bits // 8 + 2 * (scale.numel() + table.numel()) + outer
    ours = lambda: kernels.lookup(x, words, scale, table, 64)  # noqa: E731
    yield Contestant("lookup", "subbyte", shape, ours, moved, flops)
    yield Contestant("lookup", "torch f16 matmul", shape, lambda: x @ wide.T, 2 * n * k + outer, flops)


def codebook_gemm(m: int, n: int, k: int, bits: int) -> Iterator[Contestant]:
    """E8P codes beside the same weights in f16."""
    x, wide = (torch.randn(rows, k, dtype=torch.float16, device="cuda") for rows in (m, n))
    words = torch.randint(-(2**31), 2**31, (n, k * bits // 32), dtype=torch.int32, device="cuda")
    shape, flops, outer = f"{m}x{n}x{k} e8p{bits}", 2 * m * n * k, 2 * m * (n + k)
    codes = n * k * bits // 8 + outer
    yield Contestant("codebook_gemm", "subbyte", shape, lambda: kernels.codebook_gemm(x, words, bits), codes, flops)
    yield Contestant("codebook_gemm", "torch f16 matmul", shape, lambda: x @ wide.T, 2 * n * k + outer, flops)


def codebook_gemm_vectors(m: int, n: int, k: int, counts: tuple[int, int]) -> Iterator[Contestant]:
    """Codes of eight outputs, of one stage or two, beside the same weights in f16."""
    x, wide = (torch.randn(rows, k, dtype=torch.float16, device="cuda") for rows in (m, n))
    books = [torch.randn(1, count, 8, dtype=torch.float16, device="cuda") if count else None for count in counts]
    bits = sum((count - 1).bit_length() for count in counts if count)
    words = torch.randint(-(2**31), 2**31, (n // 8, k * bits // 32), dtype=torch.int32, device="cuda")
    shape, flops, outer = f"{m}x{n}x{k} v8k{counts[0]}r{counts[1]}", 2 * m * n * k, 2 * m * (n + k)
    moved = n // 8 * k * bits // 8 + 16 * sum(counts) + outer
    ours = lambda: kernels.codebook_gemm(x, words, codebook=books[0], residual=books[1])  # noqa: E731
    yield Contestant("codebook_gemm", "subbyte", shape, ours, moved, flops)
    yield Contestant("codebook_gemm", "torch f16 matmul", shape, lambda: x @ wide.T, 2 * n * k + outer, flops)


def block_scaled(m: int, n: int, k: int, element: str, block: int, scale_dtype: str) -> Iterator[Contestant]:
    """MX and NVFP4 weights beside the same weights in f16."""
    bits = 4 if element == "e2m1" else 8
    x, wide = (torch.randn(rows, k, dtype=torch.float16, device="cuda") for rows in (m, n))
    words = torch.randint(-(2**31), 2**31, (n, k * bits // 32), dtype=torch.int32, device="cuda")
    scale = torch.randint(50, 60, (n, k // block), dtype=torch.uint8, device="cuda")
    shape, flops, outer = f"{m}x{n}x{k} {element} {scale_dtype}", 2 * m * n * k, 2 * m * (n + k)
    given = x, words, scale, element, block, scale_dtype
    moved = n * k * bits // 8 + scale.numel() + outer
    yield Contestant("block_scaled", "subbyte", shape, lambda: kernels.block_scaled(*given), moved, flops)
    yield Contestant("block_scaled", "torch f16 matmul", shape, lambda: x @ wide.T, 2 * n * k + outer, flops)


def block_scaled_pair(m: int, n: int, k: int, element: str, block: int, scale_dtype: str) -> Iterator[Contestant]:
    """Both operands in blocks beside f16, and beside the same weights with 16-bit activations."""
    bits = 4 if element == "e2m1" else 8
    x, words = (
        torch.randint(-(2**31), 2**31, (rows, k * bits // 32), dtype=torch.int32, device="cuda") for rows in (m, n)
    )
    one = 127 if scale_dtype == "e8m0" else 56
    scales = [torch.randint(one - 5, one + 5, (rows, k // block), dtype=torch.uint8, device="cuda") for rows in (m, n)]
    half, wide = (torch.randn(rows, k, dtype=torch.float16, device="cuda") for rows in (m, n))
    shape, flops, format = f"{m}x{n}x{k} {element} {scale_dtype}", 2 * m * n * k, (element, block, scale_dtype)
    moved = (m + n) * k * bits // 8 + sum(scale.numel() for scale in scales) + 4 * m * n
    ours = lambda: kernels.block_scaled_pair(x, words, *scales, *format)  # noqa: E731
    yield Contestant("block_scaled_pair", "subbyte", shape, ours, moved, flops)
    weights = lambda: kernels.block_scaled(half, words, scales[1], *format)  # noqa: E731
    of_weights = n * k * bits // 8 + scales[1].numel() + 2 * m * (n + k)
    yield Contestant("block_scaled_pair", "subbyte block_scaled", shape, weights, of_weights, flops)
    whole = 2 * (n * k + m * (n + k))
    yield Contestant("block_scaled_pair", "torch f16 matmul", shape, lambda: half @ wide.T, whole, flops)


def csr(m: int, n: int, k: int) -> Iterator[Contestant]:
    """One weight in a hundred, beside torch's product with the same."""
    dense = torch.where(torch.rand(n, k, device="cuda") < 0.01, 1.0, 0.0).half().to_sparse_csr()
    pointers, columns = dense.crow_indices().int(), dense.col_indices().to(torch.uint16)
    values, x = dense.values(), torch.randn(m, k, dtype=torch.float16, device="cuda")
    base = torch.zeros(m, n, dtype=torch.float16, device="cuda")
    shape, flops, moved = f"{m}x{n}x{k} 1%", 2 * m * len(values), 4 * len(values) + 4 * n + 2 * m * (k + 2 * n)
    ours, turned = (lambda: kernels.csr(x, values, columns, pointers, base)), x.T.contiguous()
    yield Contestant("csr", "subbyte", shape, ours, moved, flops)
    yield Contestant("csr", "torch sparse matmul", shape, lambda: dense @ turned, moved, flops)


def w8a8(m: int, n: int, k: int) -> Iterator[Contestant]:
    """int8 by int8 beside torch's integer product, which wants more than 16 rows, with the same scaling behind it."""
    x, weight = (torch.randint(-128, 128, (rows, k), dtype=torch.int8, device="cuda") for rows in (m, n))
    x_scale, w_scale = (torch.rand(rows, device="cuda") for rows in (m, n))
    shape, moved, flops = f"{m}x{n}x{k}", n * k + m * k + 4 * m * n, 2 * m * n * k
    yield Contestant("w8a8", "subbyte", shape, lambda: kernels.w8a8(x, weight, x_scale, w_scale), moved, flops)
    if m > 16:

        def peer() -> object:
            return torch._int_mm(x, weight.T).float() * x_scale[:, None] * w_scale

        yield Contestant("w8a8", "torch._int_mm and scales", shape, peer, moved, flops)


def w4a8(m: int, n: int, k: int, group: int) -> Iterator[Contestant]:
    """4-bit weights, per group or (-1) per channel, beside the same weights as bytes."""
    x, weight = (torch.randint(-128, 128, (rows, k), dtype=torch.int8, device="cuda") for rows in (m, n))
    words = torch.randint(-(2**31), 2**31, (n, k // 8), dtype=torch.int32, device="cuda")
    scales = [torch.rand(rows, device="cuda") for rows in (m, n)]
    shape, flops = f"{m}x{n}x{k} g{group}", 2 * m * n * k
    levels = None if group == -1 else torch.randint(1, 9, (n, k // group), dtype=torch.uint8, device="cuda")
    moved = n * k // 2 + m * k + 4 * m * n + (0 if levels is None else levels.numel())
    yield Contestant(
        "w4a8", "subbyte", shape, lambda: kernels.w4a8(x, words, *scales, levels, None, group), moved, flops
    )
    whole = n * k + m * k + 4 * m * n
    yield Contestant("w4a8", "subbyte w8a8", shape, lambda: kernels.w8a8(x, weight, *scales), whole, flops)


def w4a4(m: int, n: int, k: int, group: int, outliers: int) -> Iterator[Contestant]:
    """Both operands of 4 bits, per token and channel (-1) or in groups with outliers, beside the same as bytes."""
    x, words = (torch.randint(-(2**31), 2**31, (rows, k // 8), dtype=torch.int32, device="cuda") for rows in (m, n))
    wide = [torch.randint(-8, 8, (rows, k), dtype=torch.int8, device="cuda") for rows in (m, n)]
    count = 1 if group == -1 else k // group
    scales, one = ([torch.rand(rows, each, device="cuda") for rows in (m, n)] for each in (count, 1))
    beside = [torch.randint(-128, 128, (rows, outliers), dtype=torch.int8, device="cuda") for rows in (m, n)]
    given = [*beside, *(each[:, 0] for each in one)] if outliers else []
    shape, flops = f"{m}x{n}x{k} g{group} o{outliers}", 2 * m * n * (k + outliers)
    moved = (m + n) * (k // 2 + 4 * count + outliers) + 4 * m * n
    yield Contestant("w4a4", "subbyte", shape, lambda: kernels.w4a4(x, words, *scales, group, *given), moved, flops)
    whole, of_rows = (m + n) * k + 4 * m * n, [each[:, 0] for each in one]
    yield Contestant("w4a4", "subbyte w8a8", shape, lambda: kernels.w8a8(*wide, *of_rows), whole, 2 * m * n * k)


def fp8(m: int, n: int, k: int) -> Iterator[Contestant]:
    """Tokens by channels beside torch's product of 8-bit floats, which wants sm_89 or later."""
    x, weight = (torch.randn(rows, k, device="cuda").to(torch.float8_e4m3fn) for rows in (m, n))
    x_scale, w_scale = torch.rand(m, 1, device="cuda"), torch.rand(n, 1, device="cuda")
    codes = x.view(torch.uint8), weight.view(torch.uint8)
    shape, moved, flops = f"{m}x{n}x{k}", n * k + m * k + 4 * m * n, 2 * m * n * k
    yield Contestant("fp8", "subbyte", shape, lambda: kernels.fp8(*codes, x_scale, w_scale), moved, flops)
    if torch.cuda.get_device_capability() >= (8, 9):

        def peer() -> object:
            return torch._scaled_mm(x, weight.T, x_scale, w_scale.T, out_dtype=torch.bfloat16)

        yield Contestant("fp8", "torch._scaled_mm to bf16", shape, peer, moved - 2 * m * n, flops)


def int4_fp8(m: int, n: int, k: int) -> Iterator[Contestant]:
    """Groups of 128 with E4M3 scales, beside the same weights as 8-bit floats."""
    x, weight = (torch.randint(0, 120, (rows, k), dtype=torch.uint8, device="cuda") for rows in (m, n))
    words = torch.randint(-(2**31), 2**31, (n, k // 8), dtype=torch.int32, device="cuda")
    w_scale = torch.randint(1, 100, (n, k // 128), dtype=torch.uint8, device="cuda")
    x_scale, of_w = torch.rand(m, device="cuda"), torch.rand(n, 1, device="cuda")
    shape, flops, outer = f"{m}x{n}x{k} g128", 2 * m * n * k, m * k + 4 * m * n
    ours, moved = (lambda: kernels.int4_fp8(x, words, x_scale, w_scale, 128)), n * k // 2 + w_scale.numel() + outer
    yield Contestant("int4_fp8", "subbyte", shape, ours, moved, flops)
    bytes_of = lambda: kernels.fp8(x, weight, x_scale[:, None], of_w)  # noqa: E731
    yield Contestant("int4_fp8", "subbyte fp8", shape, bytes_of, n * k + outer, flops)


def fp8_grouped(m: int, n: int, k: int, experts: int, chosen: int) -> Iterator[Contestant]:
    """Experts of 8-bit floats beside one product of as many rows with the weight of one."""
    x = torch.randn(m, k, device="cuda").to(torch.float8_e4m3fn).view(torch.uint8)
    weight = torch.randint(0, 120, (experts, n, k), dtype=torch.uint8, device="cuda")
    x_scale, w_scale = torch.rand(m, 1, device="cuda"), torch.rand(experts, n, 1, device="cuda")
    counts, rows, offsets = routed(m, experts, chosen)
    shape, flops, outer = f"{m}x{n}x{k} {chosen} of {experts}", 2 * m * chosen * n * k, m * chosen * (4 * n + k)
    given, used = (x, weight, x_scale, w_scale, offsets, "e4m3fn", None, rows), int((counts > 0).sum())
    ours = lambda: kernels.fp8_grouped(*given)  # noqa: E731
    yield Contestant("fp8_grouped", "subbyte", shape, ours, used * n * k + outer, flops)
    gathered, of_rows = x[rows].contiguous(), x_scale[rows].contiguous()
    dense = lambda: kernels.fp8(gathered, weight[0], of_rows, w_scale[0])  # noqa: E731
    yield Contestant("fp8_grouped", "subbyte fp8, one weight", shape, dense, n * k + outer, flops)


def transforms(m: int, k: int) -> Iterator[Contestant]:
    """What stands in front of a quantized product, beside a copy of its input."""
    x = torch.randn(m, k, device="cuda")
    shape, size = f"{m}x{k}", 4 * x.numel()
    yield Contestant("hadamard", "subbyte", shape, lambda: kernels.hadamard(x), 2 * size, 0)
    yield Contestant("hadamard", "torch copy", shape, lambda: x.clone(), 2 * size, 0)
    half, wide = x.bfloat16(), torch.randn(m, k // 64 * 43, device="cuda")
    yield Contestant("hadamard", "subbyte bf16", shape, lambda: kernels.hadamard(half), size, 0)
    outer, moved = f"{m}x{wide.shape[1]}", 8 * wide.numel()
    yield Contestant("hadamard", "subbyte", outer, lambda: kernels.hadamard(wide), moved, 2 * 172 * wide.numel())
    yield Contestant("hadamard", "torch copy", outer, lambda: wide.clone(), moved, 0)
    yield Contestant("quantize_tokens", "subbyte", shape, lambda: kernels.quantize_tokens(x), size * 5 // 4, 0)
    yield Contestant("quantize_tokens", "torch copy", shape, lambda: x.to(torch.int8), size * 5 // 4, 0)
    weight, moved = torch.ones(k, dtype=torch.bfloat16, device="cuda"), half.numel() * 3
    norm = torch.nn.functional.rms_norm
    yield Contestant("norm_quantize", "subbyte", shape, lambda: kernels.norm_quantize(half, weight), moved, 0)
    yield Contestant("norm_quantize", "torch norm alone", shape, lambda: norm(half, weight.shape, weight), moved, 0)
    for one, name in ((half, shape), (wide.bfloat16(), outer)):
        fused, moved = (lambda one=one: kernels.hadamard_quantize(one)), one.numel() * 3
        yield Contestant("hadamard_quantize", "subbyte", name, fused, moved, 0)
        apart = lambda one=one: kernels.quantize_tokens(kernels.hadamard(one))  # noqa: E731
        yield Contestant("hadamard_quantize", "both, one after the other", name, apart, moved, 0)


def contestants() -> Iterator[Contestant]:
    """All of them, one after the other, so that one layer is in memory at a time."""
    for n, k in LAYERS:
        for m in TOKENS:
            for bits in (4, 8, 3, 2):
                yield from wna16(m, n, k, bits, 128)
            for bits, own in ((4, False), (4, True), (8, True)):
                yield from lookup(m, n, k, bits, own)
            for bits in (2, 3, 4):
                yield from codebook_gemm(m, n, k, bits)
            for counts in ((4096, 16), (65536, 256)):
                yield from codebook_gemm_vectors(m, n, k, counts)
            for element, block, scale_dtype in (("e2m1", 32, "e8m0"), ("e4m3fn", 32, "e8m0"), ("e2m1", 16, "e4m3fn")):
                yield from block_scaled(m, n, k, element, block, scale_dtype)
                yield from block_scaled_pair(m, n, k, element, block, scale_dtype)
            yield from csr(m, n, k)
            yield from w8a8(m, n, k)
            for group in (128, -1):
                yield from w4a8(m, n, k, group)
            for group, outliers in ((-1, 0), (128, 128)):
                yield from w4a4(m, n, k, group, outliers)
            yield from fp8(m, n, k)
            yield from int4_fp8(m, n, k)
    for m in TOKENS:
        yield from wna16_grouped(m, 14336, 4096, experts=8, chosen=2)
        yield from fp8_grouped(m, 14336, 4096, experts=8, chosen=2)
        yield from transforms(m, 4096)


def timed(call: Callable[[], object], before: Callable[[], object]) -> float:
    """Microseconds of a call after `before`, the median."""
    times = []
    for _ in range(CALLS):
        before()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end))
    return median(times)


def measure(given: Contestant, flush: Any) -> Row:
    """Both times of one contestant, after three calls that nobody times."""
    for _ in range(3):
        given.call()
    return Row.of(given, timed(given.call, flush.zero_), timed(given.call, lambda: None))


def candidates(given: Contestant) -> list[tuple[int, int]]:
    """Each tile of its kernel with each number of slices of K that may help; none for a kernel that does not ask."""
    if given.who != "subbyte" or given.kernel not in tuned.KERNELS:
        return []
    k = int(sizes_of(given.shape)[2])
    slices = [each for each in SLICES if each <= max(1, k // 512)]
    return [(rows, each) for rows in tuned.tiles(given.kernel, driver.capability(0)) for each in slices]


def sizes_of(shape: str) -> list[int]:
    """M, N and K of a contestant's shape, or what else stands there in front of a space."""
    return [int(each) for each in shape.split(" ")[0].split("x")]


def best(given: Contestant, clock: Callable[[Contestant], float]) -> tuple[int, int] | None:
    """The choice of least time, which `clock` takes; none for a kernel that does not ask."""
    times = {}
    for choice in candidates(given):
        with tuned.forced(choice):
            times[choice] = clock(given)
    return min(times, key=lambda choice: times[choice]) if times else None


def write_choices(found: dict[str, dict[str, tuple[int, int]]], card: str, path: Path) -> None:
    """Puts the choices of a card, by kernel and class of shapes, into the table; other cards stay."""
    table = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**table, card: found}, indent=1, sort_keys=True) + "\n")


def write(rows: list[Row], card: str, driver: str, folder: Path) -> Path:
    """The results of a card, those of an earlier run replaced."""
    path = folder / f"{slug(card)}.json"
    report = {"card": card, "driver": driver, "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def main() -> int:
    """Runs both halves; 1 where there is no card or a test fails."""
    try:
        devices, driver = cuda.devices(), "CUDA {}.{}".format(*cuda.driver_version())
    except SubbyteError as error:
        print(f"gpu-check needs an NVIDIA card: {error}", file=sys.stderr)
        return 1
    if not torch.cuda.is_available():
        print("gpu-check needs a torch that was built for CUDA; this one sees no card", file=sys.stderr)
        return 1
    tests = [sys.executable, "-m", "pytest", "-q", "tests/cuda/test_device.py"]
    if subprocess.run(tests, check=False, cwd=ROOT).returncode:
        return 1
    flush = torch.empty(FLUSH, dtype=torch.uint8, device="cuda")
    rows, choices = [], {}

    def clock(given: Contestant) -> float:
        given.call()
        return timed(given.call, flush.zero_)

    for given in contestants():
        if choice := best(given, clock):  # of one class the first: other groups of the same shape would choose alike
            choices.setdefault(given.kernel, {}).setdefault(tuned.shape_class(sizes_of(given.shape)), choice)
        rows.append(row := measure(given, flush))
        print(
            f"{row.kernel:16} {row.shape:24} {row.who:26} {row.cold_us:10} us cold {row.warm_us:10} us warm", flush=True
        )
    print(write(rows, devices[0].name, driver, ROOT / "benches" / "results"))
    write_choices(choices, devices[0].name, tuned.TABLE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
