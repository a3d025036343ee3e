"""Half-quadratic zero points; Gram matrices of inputs, the inverse factor of a Hessian, error feedback, descent."""

from __future__ import annotations

from subbyte.kernels._array import Array, call


def accumulate_gram(gram: Array, x: Array) -> None:
    """Adds x^T x to `gram`, in place: the one kernel that writes an argument.

    gram  [C, C] f32, symmetric, writable, apart from x in memory (NumPy, torch or CuPy: JAX arrays are immutable)
    x     [T, C] f32; CPU, contiguous

    The sum stays exactly symmetric and does not depend on the number of threads. Twice this over the number of rows is
    the Hessian of a linear's squared output error. NaN and infinity spread as in any product. Raises StrideError (also
    for a read-only or overlapping gram), ShapeError, DtypeError, DeviceError.

    >>> import numpy as np
    >>> gram = np.zeros((2, 2), np.float32)
    >>> accumulate_gram(gram, np.array([[1.0, 2.0], [0.0, 1.0]], np.float32))
    >>> gram
    array([[1., 2.],
           [2., 5.]], dtype=float32)
    """
    call("accumulate_gram", {"gram": gram, "x": x})


def inverse_factor(hessian: Array, damp: float) -> Array:
    """The upper triangular U with (hessian + damp I)^-1 = U^T U, whose rows tell `gptq` where errors go.

    hessian  [C, C] f32, symmetric, finite; CPU, contiguous
    damp     added to the diagonal as it is, 0 or more
    returns  [C, C] f32, zero below the diagonal

    Frantar et al., 2023, section 3.3 (the Cholesky reformulation), by one Cholesky of the flipped matrix and one
    triangular inverse. Raises SingularError (not positive definite at this damp: damp more), NotFiniteError, RangeError
    (damp), ShapeError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> inverse_factor(np.array([[1.0, 2.0], [2.0, 3.0]], np.float32), damp=1.0)
    array([[ 1. , -0.5],
           [ 0. ,  0.5]], dtype=float32)
    """
    return call("inverse_factor", {"hessian": hessian}, damp=damp)


def gptq(
    weight: Array,
    factor: Array,
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
    fresh_groups: bool = False,
    block: int = 128,
    scale: Array | None = None,
    zero: Array | None = None,
    index: Array | None = None,
) -> tuple[Array, Array, Array, Array, Array]:
    """Rounds a weight column by column, each error spread over the columns to come (Frantar et al., 2023, algorithm 1).

    weight        [R, C] f32, finite; CPU, contiguous
    factor        [C, C] f32, upper triangular: `inverse_factor` of the Hessian, columns in the order of `weight`
    bits, ...     the grid's options, as in `fit_affine`; a group's grid is fitted when the loop reaches it
    fresh_groups  fit on weights with every error so far; else with those up to the last block (the released code)
    block         columns between two updates of the rest: changes the speed and the order of sums, no more
    scale, zero   [R, G] f32 and u8: grids that are given; together with `index`, or all three None
    index         [C] i32: the group of each column, for given grids
    returns       codes [R, C] u8, scale [R, G] f32, zero [R, G] u8, the compensated weight [R, C] f32 (each column as
                  it was when it was rounded), loss [R] f32 (half the sum of squared errors, each over factor[j, j])

    Does not depend on the number of threads. Raises RangeError (an impossible grid, block, index, a factor without
    positive diagonal), UnknownNameError (scale_dtype), ShapeError, NotFiniteError, DtypeError, StrideError,
    DeviceError.

    >>> import numpy as np
    >>> codes, scale, zero, compensated, loss = gptq(np.float32([[0.4, -1.5]]), np.eye(2, dtype=np.float32), bits=2)
    >>> codes, scale, zero
    (array([[2, 0]], dtype=uint8), array([[1.]], dtype=float32), array([[2]], dtype=uint8))
    """
    arrays = {"weight": weight, "factor": factor, "scale": scale, "zero": zero, "index": index}
    grid = {
        "symmetric": symmetric,
        "narrow": narrow,
        "forced_zero": forced_zero,
        "eps": eps,
        "scale_dtype": scale_dtype,
    }
    search = {"norm": norm, "shrink_grid": shrink_grid, "shrink_steps": shrink_steps}
    codes, scale, zero, compensated, loss = call(
        "gptq", arrays, bits=bits, group=group, **grid, **search, fresh_groups=fresh_groups, block=block
    )
    return codes, scale, zero, compensated, loss


def gptq_codebook(
    weight: Array, factor: Array, codebook: Array, residual: Array | None = None, block: int = 128
) -> tuple[Array, Array, Array]:
    """The column loop of `gptq` with codewords in place of codes: v neighbouring rows of a column are rounded together.

    weight    [R, C] f32, finite; CPU, contiguous
    factor    [C, C] f32, upper triangular: `inverse_factor` of the Hessian, columns in the order of `weight`
    codebook  [G, K, v] f32: codewords of G groups of C / G neighbouring columns
    residual  [G, L, v] f32: the nearest of them to what the first codeword leaves is added, or None
    block     columns between two updates of the rest: changes the speed and the order of sums, no more
    returns   codes [ceil(R / v), C] i32, packed as `codebook_gemm` reads them: the codeword's number, and above its
              bits that of the residual; the compensated weight [R, C] f32 (each column as it was when it was rounded);
              loss [R] f32 (half the sum of squared errors, each over factor[j, j])

    Liu et al., 2024 (VPTQ, algorithm 1). The search is that of `nearest_codeword`, by plain distances: all weights of a
    column have one diagonal entry of the factor. Where v does not divide R, zeros stand for what is missing. Does not
    depend on the number of threads. Raises RangeError (block, no codewords, codes of more than 32 bits, a factor
    without positive diagonal), ShapeError, NotFiniteError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> weight, factor = np.float32([[0.9, 0.0], [0.8, 0.0]]), np.float32([[1.0, -0.5], [0.0, 1.0]])
    >>> codebook = np.float32([[[0.0, 0.0], [1.0, 1.0]]])
    >>> codes, compensated, loss = gptq_codebook(weight, factor, codebook)
    >>> codes, compensated
    (array([[1, 0]], dtype=int32), array([[ 0.9       , -0.05000001],
           [ 0.8       , -0.09999999]], dtype=float32))
    """
    arrays = {"weight": weight, "factor": factor, "codebook": codebook, "residual": residual}
    codes, compensated, loss = call("gptq_codebook", arrays, block=block)
    return codes, compensated, loss


def codebook_descent(
    weight: Array,
    hessian: Array,
    codes: Array,
    codebook: Array,
    residual: Array | None = None,
    beside: Array | None = None,
    sweeps: int = 3,
    block: int = 128,
) -> Array:
    """The step of `coordinate_descent` for codewords: the codes of a column are found anew with all others as they are.

    weight    [R, C] f32, finite; CPU, contiguous
    hessian   [C, C] f32, symmetric, finite, a diagonal of 0 or more: H of the loss (w - q) H (w - q)^T of a row
    codes     [ceil(R / v), C] i32: where it begins, packed as `gptq_codebook` gives them
    codebook  [G, K, v] f32: codewords of G groups of C / G neighbouring columns
    residual  [G, L, v] f32: the codewords of the second stage, or None
    beside    [R, C] f32: added to (w - q) H, for what columns do that are not here, or None
    sweeps    passes over the columns at most, in their order; fewer where nothing moves any more
    block     columns between two updates of the rest: changes the speed and the order of sums, no more
    returns   codes [ceil(R / v), C] i32

    Each column takes the codewords nearest to where it would be best, q + ((w - q) H + beside)_j / H_jj, where they are
    nearer than its own; of two stages each is chosen beside the other one, the first before the second. So no step
    raises the loss of a strip's rows, but for rounding (Behdin et al., 2023, lemma 2, whose step is the same for a
    column of vectors along the outputs). Columns whose diagonal is 0 stay. Where v does not divide R, zeros stand for
    what is missing. Does not depend on the number of threads. Raises RangeError (sweeps, block, no codewords, codes
    beyond them or of more than 32 bits, a negative diagonal), ShapeError, NotFiniteError, DtypeError, StrideError,
    DeviceError.

    >>> import numpy as np
    >>> weight, hessian = np.float32([[0.9, 0.4], [0.8, 0.4]]), np.float32([[1.0, 0.9], [0.9, 1.0]])
    >>> codebook = np.float32([[[0.0, 0.0], [1.0, 1.0]]])
    >>> codebook_descent(weight, hessian, np.int32([[0, 0]]), codebook)  # the nearest alone would be 1 and 0
    array([[1, 0]], dtype=int32)
    """
    arrays = {"weight": weight, "hessian": hessian, "codes": codes, "codebook": codebook}
    return call("codebook_descent", {**arrays, "residual": residual, "beside": beside}, sweeps=sweeps, block=block)


def half_quadratic(
    weight: Array,
    bits: int,
    group: int = -1,
    p: float = 0.7,
    beta: float = 10.0,
    kappa: float = 1.01,
    steps: int = 20,
    stop: bool = True,
    best: bool = False,
    round_zero: bool = False,
    scale_dtype: str = "f32",
) -> tuple[Array, Array, Array, Array]:
    """Codes with float zero points, by half-quadratic splitting of the weight's own error (Badri and Shaji, 2023).

    weight       [R, C] f32, finite; CPU, contiguous
    bits         1 to 8
    p            exponent of the error, above 0, at most 1: minimises sum |w - r| ** p, r what the codes stand for
    beta, kappa  weight of the quadratic term in the first pass, above 0, and by what it grows with each, at least 1
    steps        passes at most, up to 1000; 0 leaves round to nearest with a float zero point
    stop         stop at the first pass whose mean |w - r|, over the whole weight, is not below that of all before
    best         keep the zero points of the pass with the least mean |w - r|; else those after the last, as released
    round_zero   start from whole zero points
    scale_dtype  "f32", "f16", "bf16": what scales and zero points are rounded to before the codes are chosen
    returns      codes [R, C] u8, scale [R, C / group] f32, zero [R, C / group] f32, errors [steps] f32 (the mean
                 |w - r| at the start of each pass; NaN where there was none)

    scale = (max - min) / (2 ** bits - 1), at least 5e-5, and 1 for a range up to 1e-4; zero starts at -min / scale. A
    pass takes codes = clamp(rint(w / scale + zero), 0, 2 ** bits - 1), e = w - r, shrinks e to
    sign(e) max(|e| - |e| ** (p - 1) / beta, 0) and sets zero to the group's mean of codes - (w - e) / scale. Every path
    gives the same bits, whatever the threads. Raises RangeError, UnknownNameError (scale_dtype), ShapeError,
    NotFiniteError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> weight = np.array([[-1.0, 0.0, 0.75, 2.0]], np.float32)
    >>> codes, scale, zero, errors = half_quadratic(weight, bits=2, beta=1.0, steps=1)
    >>> codes, zero  # nothing is left of the one error, -0.25, and the zero point goes a quarter of it its way
    (array([[0, 1, 2, 3]], dtype=uint8), array([[1.0625]], dtype=float32))
    """
    options = {"p": p, "beta": beta, "kappa": kappa, "steps": steps, "stop": stop, "best": best}
    final = {"round_zero": round_zero, "scale_dtype": scale_dtype}
    codes, scale, zero, errors = call("half_quadratic", {"weight": weight}, bits=bits, group=group, **options, **final)
    return codes, scale, zero, errors


def coordinate_descent(
    weight: Array,
    hessian: Array,
    scale: Array,
    zero: Array,
    index: Array,
    bits: int,
    sweeps: int = 30,
    relax: int = 3,
    block: int = 128,
    start: Array | None = None,
    only: int | None = None,
) -> tuple[Array, Array, Array]:
    """Rounds a weight column by column, over and over, each to the best code with all others as they are.

    weight       [R, C] f32, finite; CPU, contiguous
    hessian      [C, C] f32, finite, symmetric, with a diagonal of 0 or more; it need not be invertible
    scale, zero  [R, G] f32 and u8: the grids
    index        [C] i32: the group of each column
    sweeps       passes over all columns, at least 1
    relax        sweeps k with k % relax == 1, but for the last four, move columns without rounding them; 0: none does
    block        columns between two updates of the gradient: changes the speed and the order of sums, no more
    start        [R, C] f32: the values to begin with, on the grid or off it; None: the weight itself
    only         one sweep of these alone, numbered from 0, for callers that change weight or grid between sweeps
    returns      codes [R, C] u8, loss [R] f32 (half of (w - q) hessian (w - q)^T), q [R, C] f32: what the codes stand
                 for, or, after a relaxed sweep alone, the values off the grid

    Behdin et al., 2023 (QuantEase, lemma 2): column j goes to the code nearest to
    q_j + (w - q) hessian[:, j] / hessian[j, j]; where that diagonal is 0, to the nearest of its value. Without relaxed
    sweeps the loss never rises. Does not depend on the number of threads. Raises RangeError (a grid, index,
    diagonal, sweeps, only or block out of range), ShapeError, NotFiniteError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> weight, hessian = np.float32([[0.375, 0.375]]), np.float32([[1.0, 0.75], [0.75, 1.0]])
    >>> scale, zero, index = np.float32([[1.0]]), np.uint8([[1]]), np.zeros(2, np.int32)
    >>> coordinate_descent(weight, hessian, scale, zero, index, bits=2, sweeps=1)
    (array([[1, 2]], dtype=uint8), array([0.08984375], dtype=float32), array([[0., 1.]], dtype=float32))
    """
    arrays = {"weight": weight, "hessian": hessian, "scale": scale, "zero": zero, "index": index, "start": start}
    options = {"sweeps": sweeps, "relax": relax, "block": block, "only": only}
    codes, loss, values = call("coordinate_descent", arrays, bits=bits, **options)
    return codes, loss, values


def bilevel(
    weight: Array,
    factor: Array | None,
    bits: int,
    group: int,
    threshold: float | None = None,
    simplified: bool = False,
    scale_bits: int = 3,
    zero_bits: int = 3,
    run: int = 16,
    round_zero: bool = False,
    scale_dtype: str = "f16",
    block: int = 128,
    mask: Array | None = None,
) -> tuple[Array, Array, Array, Array, Array, Array, Array, Array, Array, Array]:
    """Rounds a weight by error feedback on grids that are quantized themselves, with outliers kept apart.

    weight       [R, C] f32, finite; CPU, contiguous
    factor       [C, C] f32: `inverse_factor` of the Hessian; None: errors are measured as they are, and not fed back
    bits, group  of a code, and the columns that share a scale and a zero point; group -1: all
    threshold    squared errors (w - q)^2 / factor[j, j]^2 above this keep a weight apart; None: none does
    simplified   fit each grid to all weights of its group; else without those that, left out, lower the squared error
                 of the others by more than the threshold (in their place: the mean of the others)
    scale_bits, zero_bits  bits of the codes of scales and zero points; 0: they are floats of scale_dtype
    run          rows, dividing R, whose scales (zero points) of one group share a grid of the second level
    round_zero   zero points are whole numbers before they are quantized
    scale_dtype  "f32", "f16" or "bf16": what the floats are rounded to that are stored
    block        columns between two updates of the rest: changes the speed and the order of sums, no more
    mask         [R, C] u8: what is kept apart, not 0 there, is given, whatever threshold and simplified say
    returns      codes [R, C] u8; scale, zero [R, G] f32, by which they are decoded: scale * (code - zero); codes of
                 the scales and of the zero points [R, G] u8; their grids [R / run, G, 2] f32, each a scale and a zero
                 point; mask [R, C] u8; the compensated weight [R, C] f32, each column as it was when it was rounded;
                 loss [R] f32, half the squared errors of what is not kept apart

    Dettmers et al., 2023 (SpQR, algorithm 1). A grid reaches from the least to the largest value; its zero point
    is no whole number; equal values get the range -1 to 1, in the second level a grid that holds just that value. What
    is kept apart has the code nearest to 0, and leaves no error. Does not depend on the number of threads. Raises
    RangeError (bits, threshold, block, a factor without positive diagonal), ShapeError (group, run), NotFiniteError,
    UnknownNameError (scale_dtype), DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> weight = np.array([[0.0, 1.0, 2.0, 3.5], [4.0, 0.0, 6.0, 0.0]], np.float32)
    >>> codes, scale, zero, *_ = bilevel(weight, None, bits=2, group=2, scale_bits=0, zero_bits=0, run=1)
    >>> codes, scale, zero
    (array([[0, 3, 0, 3],
           [3, 0, 3, 0]], dtype=uint8), array([[0.33325195, 0.5       ],
           [1.3330078 , 2.        ]], dtype=float32), array([[-0., -4.],
           [-0., -0.]], dtype=float32))
    """
    arrays = {"weight": weight, "factor": factor, "mask": mask}
    levels = {"scale_bits": scale_bits, "zero_bits": zero_bits, "run": run, "round_zero": round_zero}
    apart = {"threshold": threshold, "simplified": simplified}
    found: tuple[Array, Array, Array, Array, Array, Array, Array, Array, Array, Array] = call(
        "bilevel", arrays, bits=bits, group=group, **apart, **levels, scale_dtype=scale_dtype, block=block
    )
    return found


def ldlq(
    weight: Array,
    hessian: Array | None,
    bits: int,
    codewords: str = "integers",
    sweeps: int = 0,
    start: Array | None = None,
    block: int = 128,
) -> tuple[Array, Array, Array]:
    """Rounds a weight from its last columns to its first with linear feedback, then in sweeps of coordinate descent.

    weight     [R, C] f32, finite, in units of the codewords; CPU, contiguous
    hessian    [C, C] f32, finite, symmetric, positive definite; None: everything goes to its nearest codeword
    bits       of a weight: 1 to 8, for "e8p" 2, 3 or 4
    codewords  "integers": 0 to 2 ** bits - 1, column by column; "e8p": those of `e8p_encode`, eight columns at a time
    sweeps     passes over all blocks after the first one; they end early where one changes nothing
    start      [R, C] f32: where the sweeps begin, on the codewords or off them, in place of a first pass
    block      columns between two updates of the rest: changes the speed and the order of sums, no more
    returns    codes [R, C / dim] i32, dim being 1 or 8; q [R, C] f32, what they stand for; loss [R] f32, half of
               (w - q) hessian (w - q)^T, without a Hessian half of |w - q|^2

    With H = L D L^T, L unit lower triangular (in blocks of dim), columns k go to the codewords nearest to
    w_k + (w - q) L[:, k], floor(x + 1/2) for integers (Chee et al., 2023, algorithm 3; Tseng et al., 2024, equation 4).
    A sweep then moves each from the last to the first to those nearest to q_k + (w - q) H[:, k] inv(H[k, k]); integers
    may leave their range on the way and are clamped after each sweep. L is found in f32, and where that meets a pivot
    of zero or less once more in f64. Does not depend on the number of threads. Raises RangeError (bits, block, sweeps
    without Hessian, a start without sweeps), SingularError (in f64 too), NotFiniteError, ShapeError, UnknownNameError
    (codewords), DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> weight, hessian = np.float32([[1.375, 1.375]]), np.float32([[1.0, 0.75], [0.75, 1.0]])
    >>> ldlq(weight, hessian, bits=2)
    (array([[2, 1]], dtype=int32), array([[2., 1.]], dtype=float32), array([0.08984375], dtype=float32))
    """
    arrays = {"weight": weight, "hessian": hessian, "start": start}
    options = {"codewords": codewords, "sweeps": sweeps, "block": block}
    codes, values, loss = call("ldlq", arrays, bits=bits, **options)
    return codes, values, loss


def min_max(
    a: Array,
    b: Array,
    levels: Array,
    codes: Array,
    frozen: Array | None = None,
    gram: Array | None = None,
    pull: Array | None = None,
    iterations: int = 30,
    active: int = 100,
    guard: bool = True,
    moves: str = "swap",
    share: float = 0.005,
    seed: int = 9101,
) -> tuple[Array, Array, Array]:
    """Searches `min_x max_k |a_k x - b_k|` for many problems that share a, each x_j out of the levels of its problem.

    a           [K, M] f32, finite; CPU, contiguous. Of a layer: K inputs of M features
    b           [R, K] f32, finite: the targets of R problems. Of a layer: the float rows' outputs, W a^T
    levels      [R, L] f32, finite, rising along each row, L at most 256
    codes       [R, M] u8, below L: where the search starts; x[r, j] = levels[r, codes[r, j]]
    frozen      [R, M] u8: what is not 0 there keeps its code; None: nothing is
    gram, pull  [M, M] and [R, M] f32: A^T A and B A of more constraints A x = B, whose squares the guard then looks at;
                None: those of a and b. Of a layer: all of the inputs, where a is a sample
    iterations  neighbourhoods that are tried after the first local search
    active      of the largest residuals, how many are looked at first and decide what a neighbourhood frees
    guard       no move may raise the sum of squared residuals
    moves       of a local search: "swap", one variable up a level and another down from there, the best pair between
                two levels; "single", one up or down, the first that helps; "both"
    share       of the variables that a neighbourhood frees, 0 to 1; at least one
    seed        of the draws, with the number of the problem
    returns     codes [R, M] u8; largest [R, 2] f32, max_k |residual| at the start and at the end; squares [R, 2] f32,
                the sums of squared residuals there

    Large neighbourhoods, as in Ahmed et al., 2025 (arXiv 2508.13437): removal at random or of what presses on the
    largest residuals, repair at random or greedily, chosen by what each brought; kept where the largest residual, and
    with the guard the sum of squares, does not rise. A change below 1e-6 of the largest residual at the start is none.
    Does not depend on the number of threads. Raises RangeError (levels, codes, iterations, active, share, seed),
    UnknownNameError (moves), NotFiniteError, ShapeError, DtypeError, StrideError, DeviceError.

    >>> import numpy as np
    >>> a, b = np.float32([[1, 1], [1, -1]]), np.float32([[1.0, 0.75]])
    >>> codes, largest, _ = min_max(a, b, np.float32([[0, 1]]), np.uint8([[0, 0]]), moves="both")
    >>> codes, largest
    (array([[1, 0]], dtype=uint8), array([[1.  , 0.25]], dtype=float32))
    """
    arrays = {"a": a, "b": b, "levels": levels, "codes": codes, "frozen": frozen, "gram": gram, "pull": pull}
    options = {"active": active, "guard": guard, "moves": moves, "share": share, "seed": seed}
    found, largest, squares = call("min_max", arrays, iterations=iterations, **options)
    return found, largest, squares
