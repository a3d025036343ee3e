"""What every tensor asks of the arrays that it keeps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from subbyte.errors import DtypeError, NotFiniteError, ShapeError

__all__ = ["check_array", "check_finite"]


def check_array(what: str, array: object, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """DtypeError, ShapeError unless `array` is a NumPy array of that dtype and shape."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        given = getattr(array, "dtype", type(array).__name__)
        raise DtypeError(what, given, f"a NumPy array of {np.dtype(dtype)}")
    if array.shape != shape:
        raise ShapeError(what, list(array.shape), list(shape))


def check_finite(what: str, array: npt.NDArray[np.floating]) -> None:
    """NotFiniteError that names the first place of a matrix with NaN or infinity."""
    if not np.isfinite(array).all():
        row, group = np.argwhere(~np.isfinite(array))[0]
        raise NotFiniteError(f"{what}[{row}, {group}]", array[row, group], "a finite number")
