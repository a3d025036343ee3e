"""Vector quantization: codebooks, the codewords nearest to points, and what is built on both."""

from __future__ import annotations

from subbyte.kernels._array import Array, call


def nearest_codeword(
    x: Array, codebook: Array, weights: Array | None = None, metric: str = "l2"
) -> tuple[Array, Array]:
    """The nearest row of a codebook for each row of x, by exhaustive search; the first of equals.

    x         [N, D] f32; CPU, contiguous
    codebook  [K, D] f32, at least one row
    weights   [N, D] f32, 0 or more, or None: all 1 (one weight a point would change no index; a full matrix is the
              plain search on x and codebook times its Cholesky factor)
    metric    "l2": the least sum_j w_j (x_j - c_j)^2; "inner": the largest sum_j w_j x_j c_j
    returns   index [N] i32, that distance or product [N] f32

    Scores are f32 sums of D (weighted l2: 2 D) fused steps, so the chosen codeword may be farther than the nearest by
    4 (steps + 2) 2^-24 (|x| + |c|)^2, norms weighted; what overflows is refused, squares below 2^-126 vanish. The same
    bits on every path. Raises RangeError (no codewords, a negative weight, numbers too large), NotFiniteError,
    UnknownNameError (metric), ShapeError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> codebook = np.array([[0.0, 0.0], [1.0, 1.0]], np.float32)
    >>> nearest_codeword(np.array([[0.9, 0.4], [0.5, 0.5]], np.float32), codebook)
    (array([1, 0], dtype=int32), array([0.37, 0.5 ], dtype=float32))
    """
    index, near = call("nearest_codeword", {"x": x, "codebook": codebook, "weights": weights}, metric=metric)
    return index, near


def kmeans(
    x: Array,
    k: int,
    weights: Array | None = None,
    start: Array | None = None,
    init: str = "plusplus",
    seed: int = 0,
    iterations: int = 25,
    tolerance: float = 0.0,
) -> tuple[Array, Array, Array]:
    """Lloyd's k-means with weights: centroids that lower the sum over rows of w_j (x_j - c_j)^2 to the nearest.

    x           [N, D] f32; CPU, contiguous
    k           centroids, 1 to N
    weights     [N] or [N, D] f32, 0 or more, or None: one a row, one an element, all 1
    start       [K, D] f32: the first centroids; None draws them
    init        "plusplus": drawn by weighted squared distance from those before (for k above 128 in 128 batches), or
                "random": different rows with equal chances
    seed        what the draws depend on, 0 or more
    iterations  at most; fewer where the assignment repeats, or the inertia falls by no more than `tolerance` of itself
    returns     centroids [K, D] f32, index of each row's nearest [N] i32, inertia [iterations + 1] f32: the weighted
                sum at the start and after each iteration, the last one repeated. The first two belong to that last one.

    A centroid without rows takes the costliest row of one that has others; a coordinate without weight stays. Means and
    inertia are f64 sums in the order of the rows; the search is that of `nearest_codeword`. Neither the number of
    threads nor the path changes anything. Raises RangeError (k, seed, iterations, tolerance, a negative weight, no
    columns, numbers whose squares overflow), NotFiniteError, UnknownNameError (init), ShapeError, DtypeError,
    StrideError, DeviceError.

    >>> import numpy as np
    >>> x = np.array([[0.0], [1.0], [10.0], [12.0]], np.float32)
    >>> centroids, index, inertia = kmeans(x, 2, start=x[:2].copy(), iterations=3)
    >>> centroids.ravel(), index, inertia[[0, -1]]
    (array([ 0.5, 11. ], dtype=float32), array([0, 0, 1, 1], dtype=int32), array([202. ,   2.5], dtype=float32))
    """
    arrays = {"x": x, "weights": weights, "start": start}
    options = {"init": init, "seed": seed, "iterations": iterations, "tolerance": tolerance}
    centroids, index, inertia = call("kmeans", arrays, k=k, **options)
    return centroids, index, inertia


def e8p_encode(x: Array, bits: int = 2) -> Array:
    """The nearest of QuIP#'s 65536 E8P codewords to each eight numbers of a row, by exact search; and what that leaves.

    x        [R, C] f32, C a multiple of 8, magnitudes up to 2 ** 60; CPU, contiguous
    bits     2: E8P alone; 3: then the nearest of the 256 shortest vectors of E8 to what is left times 2.04; 4: then E8P
             again, of what is left times 3.45
    returns  [R, C/8] u16: the magnitudes' row in the high byte, signs and shift in the low one (docs/layouts.md); for 3
             and 4 bits i32, with the second code in the bits above those

    Tseng et al., 2024, sections 4.2 and 4.3. A codeword's coordinates are multiples of 1/4 up to 2.75: scale x to them
    first. Distances are f32: the chosen codeword may be farther than the nearest by 48 2^-24 (|x| + 4)^2; which of
    equals is taken is the same on every path. Raises ShapeError, NotFiniteError, RangeError, DtypeError, StrideError,
    DeviceError.

    >>> import numpy as np
    >>> e8p_encode(np.array([[0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75]], np.float32))
    array([[0]], dtype=uint16)
    """
    return call("e8p_encode", {"x": x}, bits=bits)


def e8p_decode(codes: Array, bits: int = 2) -> Array:
    """The eight numbers that each E8P code stands for (docs/layouts.md).

    codes    [R, C] u16, for 3 and 4 bits i32; CPU, contiguous
    bits     as in `e8p_encode`
    returns  [R, 8*C] f32: exact for 2 bits, else the first value plus the second divided by its scale, rounded twice

    Raises RangeError (bits), DtypeError, StrideError, ShapeError, DeviceError.

    >>> import numpy as np
    >>> e8p_decode(np.array([[0, 1]], np.uint16)).reshape(2, 8)
    array([[0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75],
           [0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """
    return call("e8p_decode", {"codes": codes}, bits=bits)


def product_encode(x: Array, codebooks: Array) -> Array:
    """Product quantization: the nearest codeword to each of M equal parts of a row, each in a book of its own.

    x          [N, M*D] f32; CPU, contiguous
    codebooks  [M, K, D] f32, K from 1 to 65536
    returns    [N, M] u8, for K above 256 u16

    The search of `nearest_codeword`, with its bound and its ties; a residual codebook is a second call on what the
    first left. Raises RangeError (K, numbers whose squares overflow), NotFiniteError, ShapeError, DtypeError,
    StrideError, DeviceError.

    >>> import numpy as np
    >>> codebooks = np.array([[[0.0, 0.0], [1.0, 1.0]], [[5.0, 0.0], [0.0, 5.0]]], np.float32)
    >>> product_encode(np.array([[0.9, 0.8, 1.0, 4.0]], np.float32), codebooks)
    array([[1, 1]], dtype=uint8)
    """
    return call("product_encode", {"x": x, "codebooks": codebooks})


def product_decode(codes: Array, codebooks: Array) -> Array:
    """The codewords of a row's codes side by side.

    codes      [N, M] u8, for K above 256 u16; CPU, contiguous
    codebooks  [M, K, D] f32
    returns    [N, M*D] f32, the same bits as in the books

    Raises RangeError (a code of K or more), ShapeError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> codebooks = np.array([[[0.0, 0.0], [1.0, 1.0]], [[5.0, 0.0], [0.0, 5.0]]], np.float32)
    >>> product_decode(np.array([[1, 0]], np.uint8), codebooks)
    array([[1., 1., 5., 0.]], dtype=float32)
    """
    return call("product_decode", {"codes": codes, "codebooks": codebooks})


def product_scan(tables: Array, blocks: Array, rows: int) -> tuple[Array, Array]:
    """How far product-encoded rows are from queries, by tables in registers: sum_m tables[q, m, codes[n, m]].

    tables   [Q, M, 16] f32; CPU, contiguous: what each codeword of each part counts for a query, such as its squared
             distance from the query's part (asymmetric distances) or their product; M at most 65535
    blocks   [ceil(N / 32), M, 16] u8, codes of 4 bits in the layout "scan" (docs/layouts.md)
    rows     N
    returns  sums [Q, N] f32, bound [Q] f32: how far the sums of a query may be off, beside the rounding of f32

    Tables are rounded to bytes with one step for a query, the range of its widest table / 255 or what keeps sums below
    2^16, and sums are exact from there on: `bound` is M half steps. Whose sum is within 2 bound of the least may be the
    nearest; looking those few up in the tables themselves makes the search exact. Every path gives the same bits.
    Raises RangeError (M, rows), NotFiniteError, ShapeError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> tables = np.arange(32, dtype=np.float32).reshape(1, 2, 16)
    >>> codes = np.array([[3, 0], [15, 15]] * 16, np.uint8)
    >>> low, high = codes.reshape(-1, 2, 16, 2).transpose(1, 0, 3, 2)  # halves of blocks, each [blocks, M, 16]
    >>> sums, bound = product_scan(tables, np.ascontiguousarray(low | high << 4), rows=32)
    >>> bool((np.abs(sums[0, :2] - [19, 46]) <= bound).all())
    True
    """
    sums, bound = call("product_scan", {"tables": tables, "blocks": blocks}, rows=rows)
    return sums, bound
