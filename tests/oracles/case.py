"""What a test, a bench and an oracle share: the arguments of a call, what it must give, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One call of a kernel: `kernel(*args, **kwargs)` is within `bound` of `oracle(*args, **kwargs)`.

    bound   largest absolute difference, derived where it is not 0; 0 asks for the same bits, NaN and -0 included
    bytes   read and written at least
    flops   done at least
    """

    id: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    oracle: Callable[..., Any]
    bound: float = 0
    bytes: int = 0
    flops: int = 0

    def __str__(self) -> str:
        return self.id

    def check(self, got: Any) -> None:
        """Compares a result, or a tuple of results, with the oracle's: values, shapes and dtypes."""
        expected = self.oracle(*self.args, **self.kwargs)
        if not isinstance(expected, tuple):
            got, expected = (got,), (expected,)
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            if self.bound == 0 and one.dtype.kind == "f" == other.dtype.kind:
                one, other = one.view(f"u{one.itemsize}"), other.view(f"u{other.itemsize}")
            np.testing.assert_allclose(one, other, rtol=0, atol=self.bound, strict=True)
