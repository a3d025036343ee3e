"""Which tile, and how many slices of K: what was measured on a card where it was, a heuristic where it was not.

tuned.json holds, by the card's name, kernel and class of shapes, a choice [rows of a tile, slices of K]; M, N and K of
a class are powers of two, those of its shapes rounded up. benches/gpu_check.py writes it; no card has been measured so
far. A choice that a kernel does not have is passed over, so a table of another version costs speed and no more.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from subbyte.cuda import driver

__all__ = [
    "KERNELS",
    "OWN",
    "TABLE",
    "choice_of",
    "choose",
    "fitting",
    "forced",
    "shape_class",
    "tiles",
]

TABLE = Path(__file__).with_name("tuned.json")
#: The kernels that ask, and the rows of their tiles.
KERNELS = {
    "block_scaled_pair": (16, 64),
    "fp8": (16, 64),
    "int4_fp8": (16, 64),
    "w4a4": (16, 128),
    "w4a8": (16, 128),
    "w8a8": (16, 128),
}
#: Where an architecture has others, by compute capability: those of cuda/gemm/<kernel>_sm90a.cu and its like.
OWN: dict[tuple[int, int], dict[str, tuple[int, ...]]] = {
    (9, 0): {"fp8": (16, 64, 128), "int4_fp8": (16, 64, 128), "w8a8": (16, 64, 128)},
    (10, 0): {"block_scaled_pair": (16, 128)},
    (12, 0): {"block_scaled_pair": (16, 128)},
}
_FORCED: ContextVar[tuple[int, int] | None] = ContextVar("_FORCED", default=None)


def choose(kernel: str, device: int, sizes: Sequence[int]) -> tuple[int, int]:
    """Rows of a tile for `sizes` M, N, K, and slices of K, 0 for as many as occupy the card."""
    rows, table, measured = tiles(kernel, driver.capability(device)), _table(), _FORCED.get()
    if measured is None and table:
        measured = _found(table, driver.name(device), kernel, shape_class(sizes))
    return choice_of(rows, measured, sizes[2]) or (fitting(rows, sizes[0]), 0)


def tiles(kernel: str, capability: tuple[int, int]) -> tuple[int, ...]:
    """Rows of the tiles that a kernel has on a device of that compute capability, ascending."""
    return OWN.get(capability, {}).get(kernel, KERNELS[kernel])


def fitting(tiles: Sequence[int], rows: int) -> int:
    """The lowest of some tiles that holds so many rows, or the tallest.

    >>> fitting((16, 64, 128), 17), fitting((16, 64, 128), 1000)
    (64, 128)
    """
    return next((each for each in tiles if rows <= each), tiles[-1])


def shape_class(sizes: Sequence[int]) -> str:
    """M, N and K as powers of two, such as "16x4096x4096".

    >>> shape_class((9, 4096, 3000))
    '16x4096x4096'
    """
    return "x".join(str(1 << max(size - 1, 0).bit_length()) for size in sizes)


@contextmanager
def forced(choice: tuple[int, int]) -> Iterator[None]:
    """This choice inside, for those who measure."""
    token = _FORCED.set(choice)
    try:
        yield
    finally:
        _FORCED.reset(token)


def choice_of(tiles: Sequence[int], value: Any, k: int) -> tuple[int, int] | None:
    """A value of a table as a choice, if it is one: a tile of those rows, and slices no shorter than 256 of K."""
    if not isinstance(value, list | tuple) or len(value) != 2 or any(type(number) is not int for number in value):
        return None
    rows, slices = value
    return (rows, slices) if rows in tiles and 0 <= slices <= max(1, k // 256) else None


def _found(table: Any, *keys: str) -> Any:
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


@functools.cache
def _table() -> Any:
    """What the file says; nothing if there is none, or none that can be read: then heuristics decide."""
    try:
        return json.loads(TABLE.read_text())
    except (OSError, ValueError):
        return {}
