"""What the commands print: results to stdout, everything else to stderr, colour and progress only on a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Self

import rich.progress
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["Progress", "as_json", "fact", "megabytes", "note", "number", "table"]


def as_json(data: object) -> None:
    """Print `data` as JSON and nothing else; NaN and infinity, which JSON lacks, become null."""
    print(json.dumps(_finite(data), indent=2))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", right: int = 1) -> None:
    """A table on stdout; columns from number `right` on are numbers, aligned to the right.

    On a terminal it is drawn by rich. A pipe gets lines of words with two spaces between the columns and no limit of
    width, so that `awk` and `grep` work and nothing is cut off.
    """
    console = Console(highlight=False)
    if console.is_terminal:
        drawn = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
        for number_, name in enumerate(columns):
            drawn.add_column(name, justify="right" if number_ >= right else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*map(escape, row))
        console.print(drawn)
        return
    widths = [max(len(line[i]) for line in [columns, *rows]) for i in range(len(columns))]
    for line in [columns, *rows]:
        cells = [c.rjust(w) if i >= right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        print("  ".join(cells).rstrip())


def fact(name: str, value: object) -> None:
    """One `name  value` line on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{name:<22}", end="", style="bold" if console.is_terminal else "")
    console.print(str(value), markup=False)


def note(text: str) -> None:
    """A remark on stderr: what is about to happen, or where the result lies."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


class Progress:
    """A bar with counts, seconds and time left on stderr; off a terminal only the lines, plain.

    >>> with Progress("work") as progress:
    ...     progress.tick(1, 2, "half of it")
    """

    def __init__(self, title: str) -> None:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.live = console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._bar = rich.progress.Progress(*columns, console=console, transient=True, disable=not self.live)
        self._task = self._bar.add_task(title, total=None, text="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def tick(self, done: int, total: int, text: str = "") -> None:
        """`done` of `total` steps are finished; `text` is shown behind the bar."""
        self._bar.update(self._task, completed=done, total=total, text=text)

    def line(self, text: str) -> None:
        """A line that stays, above the bar."""
        self._bar.console.print(text, markup=False)


def number(value: float | None, digits: int = 4) -> str:
    """`value` with a fixed number of significant digits, plain where that is readable; "-" for None.

    >>> number(39.8123), number(0.00012345), number(None), number(123456.0)
    ('39.81', '0.0001234', '-', '123456')
    """
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    before = math.floor(math.log10(abs(value))) + 1
    if -4 < before < 8:
        return f"{value:.{max(0, digits - before)}f}"
    return f"{value:.{digits - 1}e}"


def megabytes(nbytes: int) -> str:
    """A size in the unit that suits it.

    >>> megabytes(2_627_832), megabytes(512), megabytes(3_000_000_000)
    ('2.63 MB', '512 B', '3.00 GB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:.2f} {unit}"
    return f"{nbytes} B"


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_finite(value) for value in data]
    return data
