"""Which instructions and how many threads the kernels use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from subbyte import _rust

# A context variable and not a global: what one thread (or one asyncio task) forces does not reach the others. Threads
# that should follow it are started in a copy of the context: `contextvars.copy_context().run(work)`.
_forced: ContextVar[_rust.Machine | None] = ContextVar("subbyte.kernels.forced", default=None)


def current() -> _rust.Machine | None:
    """What is forced here; None leaves the choice to the environment."""
    return _forced.get()


def paths() -> list[str]:
    """The levels of instructions that this processor has, lowest first.

    >>> paths()[0]
    'scalar'
    """
    return _rust.paths()


def machine() -> tuple[str, int]:
    """The path and the number of threads that a kernel called here would use.

    Raises UnknownNameError, DeviceError or RangeError if `SUBBYTE_SIMD` or `SUBBYTE_THREADS` ask for the impossible.

    >>> with forced("scalar", threads=2):
    ...     machine()
    ('scalar', 2)
    """
    on = current() or _rust.machine()
    return on.path, on.threads


@contextmanager
def forced(path: str | None = None, threads: int | None = None) -> Iterator[None]:
    """Runs every kernel called inside the block on `path` and on `threads` threads; None leaves one as it is outside.

    Holds for the calling thread and context only; blocks nest. Results never depend on the number of threads, and on
    the path only within the bound that a kernel states.

    Raises UnknownNameError (no such path), DeviceError (not on this processor), RangeError (threads below 1).
    """
    outer_path, outer_threads = machine()
    chosen = _rust.Machine(outer_path if path is None else path, outer_threads if threads is None else threads)
    token = _forced.set(chosen)
    try:
        yield
    finally:
        _forced.reset(token)
