"""Gram matrices of inputs, the inverse factor of a Hessian, and rounding that feeds its errors back."""

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
