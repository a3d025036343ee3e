"""Systems by bits on one model: what `demo` and `compare` run, print and write."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from subbyte.cli.output import Progress, as_json, megabytes, note, number, table
from subbyte.cli.settings import study_recipe
from subbyte.errors import RecipeError

if TYPE_CHECKING:
    from subbyte.evaluate import Row
    from subbyte.recipe import Recipe

__all__ = ["Results", "Study", "check", "show"]


@dataclass(frozen=True)
class Results:
    """What a study measured: the float model, a row for each quantized one, and on how many tokens of what."""

    model: str
    text: str
    tokens: int
    baseline: Row
    rows: tuple[Row, ...]
    seconds: float


@dataclass(frozen=True)
class Study:
    """What to run: every system at every width, calibrated and evaluated on the same texts.

    `calibration` and `text` None stand for the two halves of CPython's pydoc topics. `group_size` None leaves each
    system its own; `options` are those of systems that do not run with their defaults.
    """

    model: Path
    systems: Sequence[str]
    bits: Sequence[int]
    group_size: int | None = None
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    calibration: Path | None = None
    text: Path | None = None
    samples: int = 128
    seq_len: int = 256
    window: int = 256
    windows: int = 200
    seed: int = 0

    def recipes(self) -> list[tuple[str, int, Recipe]]:
        """System, width and recipe of every cell, width by width, without the widths that a system does not have.

        Raises RecipeError for a system that has none of them.
        """
        found, refused = [], list[tuple[str, int, RecipeError]]()
        for bits in self.bits:
            for system in self.systems:
                try:
                    found.append((system, bits, study_recipe(system, bits, self.group_size, self.options.get(system))))
                except RecipeError as error:
                    if error.args[0] != "bits":
                        raise
                    refused.append((system, bits, error))
        for system, bits, refusal in refused:
            if all(system != other for other, _, _ in found):
                raise refusal
            note(f"{system}: {bits} bits left out, it has {refusal.args[2]}")
        return found

    def run(self) -> Results:
        """Quantize and measure everything; the quantized models lie in a temporary folder, one at a time."""
        from subbyte import calibration
        from subbyte.checkpoint import load
        from subbyte.evaluate import Reference, Row, checkpoint_size, evaluate
        from subbyte.pipeline import quantize

        start = time.perf_counter()
        recipes = self.recipes()  # first: a wrong name is told before an hour of work, not after
        tokens = calibration.windows(self.text, self.model, self.window, self.windows or None)
        drawn = None
        if any(recipe.wanted for _, _, recipe in recipes):
            drawn = calibration.tokens(self.calibration, self.model, self.samples, self.seq_len, self.seed)
        text = "the second half of CPython's pydoc topics" if self.text is None else self.text.name
        rows = []
        with tempfile.TemporaryDirectory(prefix="subbyte-") as folder, Progress(self.model.name) as progress:
            progress.tick(0, len(recipes) + 1, "float model")
            model, size = load(self.model), checkpoint_size(self.model)
            measured, reference = evaluate(model, tokens, size=size), Reference(model, tokens)
            stored = (size.scheme, size.bits_per_weight, size.model_bytes)
            baseline = Row("float", None, *stored, measured.perplexity, None, None, None)
            progress.line(f"float: perplexity {number(measured.perplexity)}")
            for done, (system, bits, recipe) in enumerate(recipes, start=1):
                progress.tick(done, len(recipes) + 1, f"{system}, {bits} bits")
                out = Path(folder) / f"{system}-{bits}"
                began = time.perf_counter()
                quantize(
                    self.model,
                    recipe,
                    out,
                    calibration=drawn,
                    seed=self.seed,
                    verify=False,  # the evaluation below reads the output back, and more thoroughly
                )
                seconds = time.perf_counter() - began
                size = checkpoint_size(out)
                got = evaluate(load(out), tokens, reference, size=size)
                shutil.rmtree(out)
                stored = (size.scheme, size.bits_per_weight, size.model_bytes)
                row = Row(system, bits, *stored, got.perplexity, got.kl, got.top1_agreement, seconds)
                rows.append(row)
                progress.line(f"{row.label}: perplexity {number(row.perplexity)}, KL {number(row.kl)}, {seconds:.1f} s")
        return Results(
            model=str(self.model),
            text=f"{text}, {len(tokens)} windows of {tokens.shape[1]} tokens",
            tokens=measured.tokens,
            baseline=baseline,
            rows=tuple(rows),
            seconds=time.perf_counter() - start,
        )


def check(report: Path | None, picture: Path | None) -> None:
    """Raise now what would keep `show` from writing its files after all the work."""
    from subbyte.evaluate.report import check_writable

    for path in (report, picture):
        if path is not None:
            check_writable(path)
    if picture is not None:
        import_module("matplotlib")


def show(results: Results, *, title: str, command: str, report: Path | None, picture: Path | None, json: bool) -> None:
    """Print the results as a table or as JSON, and write report and picture where a path is given."""
    from subbyte.evaluate import plot
    from subbyte.evaluate.report import html

    if report is not None:
        page = html(
            results.baseline, results.rows, title=title, text=results.text, tokens=results.tokens, command=command
        )
        _write(report, page.encode())
    if picture is not None:
        _write(picture, plot.png(results.baseline, results.rows))
    if json:
        as_json({**asdict(results), "report": None if report is None else str(report)})
    else:
        columns = ["system", "scheme", "bits/weight", "size", "perplexity", "KL", "top-1", "seconds"]
        table(columns, [_cells(row) for row in (results.baseline, *results.rows)], title=title, right=2)
    note(f"{results.text}; {results.seconds:.0f} s in all")
    for name, path in (("report", report), ("picture", picture)):
        if path is not None:
            note(f"{name}: {path}")


def _cells(row: Row) -> list[str]:
    agreement = "-" if row.top1_agreement is None else f"{100 * row.top1_agreement:.1f} %"
    seconds = "-" if row.seconds is None else f"{row.seconds:.1f}"
    numbers = [f"{row.bits_per_weight:.2f}", megabytes(row.model_bytes), number(row.perplexity), number(row.kl, 3)]
    return [row.system, row.scheme, *numbers, agreement, seconds]


def _write(path: Path, data: bytes) -> None:
    from subbyte.checkpoint.files import write_whole

    def write(file: BinaryIO) -> None:
        file.write(data)

    write_whole(path, write)
