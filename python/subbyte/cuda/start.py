"""What every kernel does once its arguments are checked: start on the stream that the arrays belong to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from subbyte.cuda import driver
from subbyte.cuda.arrays import View, current_stream
from subbyte.cuda.loader import launch, load, stream_handle

__all__ = ["start"]


def start(
    kernel: str,
    entry: str,
    x: View,
    grid: tuple[int, int],
    threads: int,
    arrays: Sequence[View | None],
    numbers: Sequence[int | float],
    *,
    shared: int = 0,
    stream: object = None,
) -> None:
    """Starts an entry of cuda/**/<kernel>.cu beside `x`: first its arrays, None for a null pointer, then its numbers.

    stream  None: the current one of the framework that `x` is of; else as in `launch`
    shared  bytes of dynamic shared memory

    Returns before the result is there, except for JAX, whose streams nobody else can wait for. Raises DriverError or
    DependencyError.
    """
    on = stream_handle(current_stream(x.framework, x.device) if stream is None else stream)
    values = [
        *(ctypes.c_void_p(each.pointer if each else None) for each in arrays),
        *(ctypes.c_float(each) if isinstance(each, float) else ctypes.c_uint(each) for each in numbers),
    ]
    launch(load(kernel, entry, x.device), (*grid, 1), (threads, 1, 1), values, shared=shared, stream=on)
    if x.framework == "jax":
        with driver.current(x.device):
            driver.call("cuStreamSynchronize", on)
