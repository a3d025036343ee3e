"""Each strip of words as one long Python integer, its codes cut out of it and looked up; the product in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.e8p_decode import values


def decoded(
    words: np.ndarray, cols: int, bits: int, codebook: np.ndarray | None, residual: np.ndarray | None
) -> np.ndarray:
    """[rows of all strips, cols] f64."""
    if codebook is None:
        width, count = 8 * bits, cols // 8
    else:
        low, high = ((book.shape[1] - 1).bit_length() if book is not None else 0 for book in (codebook, residual))
        width, count = low + high, cols
    codes = np.zeros((len(words), count), np.int64)
    for strip, row in enumerate(words):
        stream = sum((int(word) & 0xFFFFFFFF) << (32 * i) for i, word in enumerate(row))
        codes[strip] = [stream >> (j * width) & (2**width - 1) for j in range(count)]
    if codebook is None:
        return values(codes, bits)
    group = np.arange(cols) // (cols // len(codebook))
    vectors = codebook[group, codes & (2**low - 1)].astype(np.float64)
    if residual is not None:
        vectors = vectors + residual[group, codes >> low]
    return vectors.transpose(0, 2, 1).reshape(-1, cols)


def codebook_gemm(
    x: np.ndarray,
    words: np.ndarray,
    bits: int = 2,
    codebook: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    outputs: int | None = None,
) -> np.ndarray:
    """x W^T, rounded once."""
    weight = decoded(words, x.shape[-1], bits, codebook, residual)[:outputs]
    return (x.astype(np.float64) @ weight.T).astype(x.dtype)


def lattice(rows: int, cols: int, depth: int, bits: int, dtype: str = "f4") -> Case:
    """Random words: every bit pattern is a code."""
    random = np.random.default_rng(bits)
    x = random.standard_normal((rows, depth)).astype(dtype)
    words = random.integers(-(2**31), 2**31, (cols, -(-depth * bits // 32))).astype(np.int32)
    args, options = (x, words), {"bits": bits}
    moved = words.nbytes + x.nbytes + x.itemsize * rows * cols
    name = f"e8p{bits}-{rows}x{cols}x{depth}-{dtype}"
    return Case(name, args, options, codebook_gemm, bound(args, options), moved, 2 * rows * cols * depth)


def table(
    rows: int, cols: int, depth: int, dim: int, counts: tuple[int, int], groups: int = 1, dtype: str = "f4"
) -> Case:
    """Codes below the counts; the second count 0: no residual."""
    random = np.random.default_rng(dim)
    x = random.standard_normal((rows, depth)).astype(dtype)
    books = [random.standard_normal((groups, count, dim)).astype(dtype) if count else None for count in counts]
    low, high = ((count - 1).bit_length() if count else 0 for count in counts)
    words = np.zeros((-(-cols // dim), -(-depth * (low + high) // 32)), np.int32)
    for strip in range(len(words)):
        drawn = [random.integers(0, max(count, 1), depth) for count in counts]
        stream = sum(
            (int(a) | int(b) << low) << (j * (low + high)) for j, (a, b) in enumerate(zip(*drawn, strict=True))
        )
        data = stream.to_bytes(4 * words.shape[1], "little")
        words[strip] = np.frombuffer(data, "<i4")
    args, options = (x, words), {"codebook": books[0], "residual": books[1], "outputs": cols}
    name = f"v{dim}k{counts[0]}r{counts[1]}-{rows}x{cols}x{depth}-g{groups}"
    return Case(name, args, options, codebook_gemm, bound(args, options), words.nbytes, 2 * rows * cols * depth)


def bound(args: tuple[np.ndarray, ...], options: dict[str, object]) -> float:
    """K + 3 roundings of 2^-24 of sums no larger than that of magnitudes, in any order; then the dtype's own."""
    x, words = args
    if words.size > 1 << 16:
        return 0.0  # for the bench
    weight = np.abs(
        decoded(words, x.shape[1], options.get("bits", 2), options.get("codebook"), options.get("residual"))
    )  # type: ignore[arg-type]
    largest = float((np.abs(x.astype(np.float64)) @ weight.T).max(initial=0))
    return ((x.shape[1] + 3) * 2.0**-24 + np.finfo(x.dtype).eps / 2 * (x.dtype != np.float32)) * largest


def cases() -> list[Case]:
    """Few rows and many, around tasks and panels; tables of all kinds that VPTQ has, with strips that end short."""
    shapes = [(0, 3, 8), (1, 1, 8), (1, 70, 72), (2, 3, 40), (8, 65, 96), (9, 13, 56), (17, 257, 64)]
    found = [lattice(*shape, bits) for bits in (2, 3, 4) for shape in shapes]
    found += [lattice(rows, 9, 128, 2, "f2") for rows in (1, 12)]
    kinds = [
        (2, (256, 0), 1),
        (8, (4096, 16), 1),
        (6, (5, 3), 2),
        (12, (300, 0), 4),
        (1, (1, 0), 1),
        (16, (2, 65536), 1),
    ]
    return found + [table(rows, 37, 24, *kind) for kind in kinds for rows in (1, 5, 20)]


def large(rows: int, cols: int, depth: int, bits: int) -> Case:
    """For the bench."""
    return lattice(rows, cols, depth, bits)


def large_table(rows: int, cols: int, depth: int, dim: int, counts: tuple[int, int]) -> Case:
    """For the bench: counts are powers of two, so that random words are codes; f16 codewords, as files have them."""
    random = np.random.default_rng(dim)
    books = [random.standard_normal((1, count, dim)).astype(np.float16) if count else None for count in counts]
    bits = sum((count - 1).bit_length() for count in counts if count)
    words = random.integers(-(2**31), 2**31, (-(-cols // dim), -(-depth * bits // 32))).astype(np.int32)
    x = random.standard_normal((rows, depth)).astype(np.float32)
    options = {"codebook": books[0], "residual": books[1], "outputs": cols}
    name = f"v{dim}k{counts[0]}r{counts[1]}-{rows}x{cols}x{depth}"
    return Case(name, (x, words), options, codebook_gemm, 0, words.nbytes, 2 * rows * cols * depth)
