"""Results as one HTML file that needs nothing else: table, plot, sizes, seconds, machine and the command to repeat it.

The file loads no script, font, style or picture from anywhere, follows the reader's light or dark setting, and prints.
jinja2 comes with torch; matplotlib (extra `plot`) may be missing, and then the page says so where the plot would be.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from subbyte import __version__
from subbyte.errors import DependencyError, OutputError
from subbyte.evaluate.plot import svg

__all__ = ["Row", "check_writable", "environment", "html"]


@dataclass(frozen=True)
class Row:
    """One model of a comparison: how it was made, what it costs, how well it does.

    `bits` is what was asked for and `bits_per_weight` what the quantized linears really take, scales and zero points
    included; `model_bytes` is the whole checkpoint. `seconds` is the time to quantize, without the evaluation.
    The float model is the row with `bits` None; its `kl` and `top1_agreement` are None.
    """

    system: str
    bits: int | None
    scheme: str
    bits_per_weight: float
    model_bytes: int
    perplexity: float
    kl: float | None
    top1_agreement: float | None
    seconds: float | None

    @property
    def label(self) -> str:
        """Name in tables and messages, such as "gptq, 4 bits"."""
        return self.system if self.bits is None else f"{self.system}, {self.bits} bits"


def html(
    baseline: Row,
    rows: Sequence[Row],
    *,
    title: str,
    text: str,
    tokens: int,
    command: str,
    facts: Mapping[str, str] | None = None,
) -> str:
    """The page as a string.

    baseline  the float model;  rows: the quantized ones, in the order of the table
    text      what was evaluated on, in words;  tokens: how many of them were predicted
    command   what reproduces the page;  facts: name -> value about the machine, `environment()` unless given
    Raises DependencyError where jinja2 is missing.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise DependencyError("jinja2", "not installed", "it for the report", "pip install 'subbyte[plot]'") from error
    try:
        plot, missing = svg(baseline, rows), ""
    except DependencyError as error:
        plot, missing = "", error.args[3]
    page = Environment(
        loader=PackageLoader("subbyte.evaluate", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("report.html")
    widths = sorted({row.bits for row in rows if row.bits is not None}, reverse=True)
    groups = [(bits, [row for row in rows if row.bits == bits]) for bits in widths]
    return page.render(
        baseline=baseline,
        groups=groups,
        best={bits: min(row.perplexity for row in group) for bits, group in groups},
        closest={bits: min(row.kl for row in group if row.kl is not None) for bits, group in groups},
        title=title,
        text=text,
        tokens=tokens,
        command=command,
        facts=environment() if facts is None else facts,
        plot=plot,
        missing=missing,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def check_writable(path: Path) -> None:
    """OutputError where writing `path` would fail later: reports come last, after all the work."""
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        given = "a folder" if path.is_dir() else "no folder that can be written"
        raise OutputError(str(path), given, "a file in a folder that can be written", "choose another path")


def environment() -> dict[str, str]:
    """What a reader needs to judge the seconds: CPU, threads, kernels' path, and versions."""
    from subbyte import kernels

    path, threads = kernels.machine()
    facts = {
        "CPU": _processor(),
        "Kernels": f"{path}, {threads} thread" + ("s" if threads != 1 else ""),
        "System": f"{platform.system()} {platform.release()} on {platform.machine()}",
        "Python": platform.python_version(),
        "subbyte": __version__,
    }
    for package in ("torch", "transformers"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} logical processors"
    except OSError:
        pass  # no Linux: what Python knows will do
    return platform.processor() or platform.machine()
