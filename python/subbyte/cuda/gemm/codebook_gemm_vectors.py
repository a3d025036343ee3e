"""16-bit floats times codes of stored vectors along the outputs: cuda/gemm/codebook_gemm_vectors.cu."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, empty, exported, view
from subbyte.cuda.gemm.split import add, split
from subbyte.cuda.gemm.wna16 import THREADS
from subbyte.cuda.start import start
from subbyte.errors import RangeError, ShapeError

__all__ = ["codebook_gemm_vectors"]

STRIPS, PITCH, SUMS = 8, 2 * 512 + 64, 512  # of a block; bytes of a row of x; bytes of sums for each row of y
STEP = 256  # columns of K that all warps of a block take at once


def codebook_gemm_vectors(
    x: Any, words: Any, codebook: Any, residual: Any | None, outputs: int | None, *, stream: object = None
) -> Any:
    """16-bit activations times codes that stand for vectors of neighbouring outputs: y = x W^T.

    x         [..., K] f16 or bf16, torch, CuPy or JAX, contiguous, on a CUDA device; the others beside it
    words     [ceil(N / v), ceil(K (b + r) / 32)] i32, the codes of each strip of v outputs as one dense bit stream
    codebook  [G, 2 ** b or fewer, v], dtype of x: codewords of G groups of K / G columns
    residual  [G, 2 ** r or fewer, v], dtype of x, or None
    outputs   N, or None: all of the strips
    stream    as in `wna16`
    returns   [..., N], framework, dtype and device of x

    The host does not look at codes: one without codeword makes its results NaN. Codewords lie in shared memory where a
    block has the room, the first stage before the second. Raises as `wna16` does.
    """
    seen, codes, first = view("x", x), view("words", words), view("codebook", codebook)
    second = None if residual is None else view("residual", residual)
    problem = check(seen, codes, first, second, outputs)
    m, n, k = problem.m, problem.n, problem.k
    y = empty(x, seen.framework, (*seen.shape[:-1], n))
    if m == 0 or n == 0:
        return y
    result, multiprocessors = exported("y", y), driver.multiprocessors(seen.device)
    shared, inside = problem.memory(driver.shared_memory(seen.device))
    together = 2 if 2 * shared <= driver.shared_memory(seen.device) else 1
    slices, depth = split(problem.tiles, k, multiprocessors, STEP, together)
    parts = exported("parts", empty(x, seen.framework, (slices, m, n), "float32")) if slices > 1 else None
    arrays = [seen, codes, first, second, result, parts]
    books = [number for book, within in zip(problem.books, inside, strict=True) for number in (*book, int(within))]
    numbers = [m, n, k, problem.group, problem.vector, *books, depth]
    entry = f"codebook_gemm_vectors_v{problem.values}_{seen.dtype}_m{problem.tokens}"
    grid, dynamic = (min(problem.tiles, together * multiprocessors), slices), shared - SUMS * problem.tokens
    start("codebook_gemm_vectors", entry, seen, grid, THREADS, arrays, numbers, shared=dynamic, stream=stream)
    if parts is not None:
        add(parts, result, stream)
    return y


@dataclass(frozen=True)
class Problem:
    """Sizes of arguments that fit together.

    group   columns that share codewords
    vector  outputs of a codeword
    books   codewords of a group and bits of their number, of both stages
    """

    m: int
    n: int
    k: int
    group: int
    vector: int
    books: tuple[tuple[int, int], tuple[int, int]]

    @property
    def values(self) -> int:
        """Values of a codeword that a block multiplies."""
        return 2 if self.vector <= 2 else 4 if self.vector <= 4 else 8

    @property
    def tokens(self) -> int:
        """Rows of y of a tile."""
        return 8 if self.m <= 8 else 32

    @property
    def tiles(self) -> int:
        """Those of y, of which a block takes one after the other."""
        strips = math.ceil(self.n / self.vector)
        return math.ceil(self.m / self.tokens) * math.ceil(strips / STRIPS) * math.ceil(self.vector / self.values)

    def memory(self, room: int) -> tuple[int, list[bool]]:
        """Bytes of shared memory of a block, at most `room` if x alone takes no more, and which stages lie there."""
        used, inside = min(self.m, self.tokens) * PITCH + SUMS * self.tokens, []
        for count, _ in self.books:
            book = math.ceil((count + 2) * self.values * 2 / 16) * 16  # with one of NaN and one of zeros
            inside.append(count > 0 and used + book <= room)
            used += book if inside[-1] else 0
        return used, inside


def check(x: View, words: View, codebook: View, residual: View | None, outputs: int | None) -> Problem:
    """The arguments of codebook_gemm_vectors, checked; raises what it raises."""
    x.expect("f16", "bf16")
    words.expect("i32", beside=x)
    if not x.shape:
        raise ShapeError("x", "a scalar", "[..., K]")
    books, m, k = [], math.prod(x.shape[:-1]), x.shape[-1]
    for book in (codebook, residual):
        if book is None:
            books.append((0, 0))
            continue
        book.expect(x.dtype, beside=x)
        if len(book.shape) != 3 or not all(book.shape) or book.shape[::2] != codebook.shape[::2]:
            raise ShapeError(book.what, book.shape, "[G, codewords, v], each at least 1, with G and v of both the same")
        books.append((book.shape[1], (book.shape[1] - 1).bit_length()))
    (groups, _, vector), bits = codebook.shape, books[0][1] + books[1][1]
    if bits > 32:
        raise RangeError("codebook and residual", f"{bits} bits", "codes of at most 32")
    if k % groups:
        raise ShapeError("codebook", codebook.shape, f"a divisor of K = {k} as its first axis")
    if len(words.shape) != 2 or words.shape[1] != (k * bits + 31) // 32:
        raise ShapeError(
            "words", words.shape, f"[strips, {(k * bits + 31) // 32}] for K = {k} and codes of {bits} bits"
        )
    n = words.shape[0] * vector if outputs is None else outputs
    if n < 0 or words.shape[0] != math.ceil(n / vector):
        raise ShapeError("words", words.shape, f"[{math.ceil(n / vector)}, ...] for {n} outputs, {vector} at a time")
    problem = Problem(m, n, k, max(k // groups, 1), vector, (books[0], books[1]))
    if max(m, n, k, vector, problem.tiles, *(count for count, _ in books)) >= 2**31:
        raise RangeError("x and words", f"M, N, K = {m}, {n}, {k}", "each, and the tiles of the result, below 2^31")
    return problem
