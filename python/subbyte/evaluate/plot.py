"""Perplexity and KL divergence against true bits per weight, one line a system: SVG for pages, PNG for a README."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from subbyte.errors import DependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from subbyte.evaluate.report import Row

__all__ = ["png", "svg"]

# Okabe and Ito's colours, which differ for colour-blind readers too, a little darker so that thin lines carry on white.
SERIES = ("#c1540a", "#0b6fb0", "#0a8a66", "#a3477f", "#8a7400", "#4b55a0")
# One more than colours, so that together they repeat only after 42 series.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, QUIET, GRID = "#1f2328", "#656d76", "#d8dee4"

# In a page every colour is a CSS variable, so that one picture serves light and dark readers.
VARIABLES = {INK: "--ink", QUIET: "--quiet", GRID: "--line"} | {c: f"--series-{i}" for i, c in enumerate(SERIES)}


def svg(baseline: Row, rows: Sequence[Row]) -> str:
    """An `<svg>` element to stand in a page that defines `--ink`, `--quiet`, `--line` and `--series-0` to `-5`.

    The same rows give the same bytes. Raises DependencyError without matplotlib.
    """
    text = _drawn(baseline, rows, (9.6, 4.0), format="svg", transparent=True, metadata={"Date": None}).decode()
    text = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]+; ?", "", text)  # the page's own
    label = 'role="img" aria-label="Perplexity and KL divergence against bits per weight"'
    return re.sub(r'<svg [^>]*?(viewBox="[^"]+")[^>]*>', rf'<svg {label} \1 xmlns="http://www.w3.org/2000/svg">', text)


def png(baseline: Row, rows: Sequence[Row]) -> bytes:
    """The same picture as a PNG on white. Raises DependencyError without matplotlib."""
    return _drawn(baseline, rows, (9.6, 4.2), format="png", dpi=110, facecolor="white", metadata={"Software": None})


def _drawn(baseline: Row, rows: Sequence[Row], size: tuple[float, float], **how: Any) -> bytes:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError(
            "matplotlib", "not installed", "it for the plot", "pip install 'subbyte[plot]'"
        ) from error
    style: dict[Any, Any] = {
        "font.size": 10,
        "axes.edgecolor": QUIET,
        "axes.labelcolor": INK,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "text.color": INK,
        "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
        "svg.hashsalt": "subbyte",
    }
    picture = io.BytesIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        left, right = figure.subplots(1, 2)
        _panel(left, rows, [row.perplexity for row in rows], "Perplexity (lower is better)")
        low, high = left.get_ylim()
        left.set_ylim(min(low, baseline.perplexity) * (low / high) ** 0.08)  # room for the word below the line
        left.axhline(baseline.perplexity, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
        left.annotate(
            f"float {baseline.perplexity:.4g}",
            (1, baseline.perplexity),
            (-4, -3),
            xycoords=left.get_yaxis_transform(),
            textcoords="offset points",
            ha="right",
            va="top",
            color=QUIET,
        )
        _panel(right, rows, [row.kl for row in rows], "KL divergence to the float model, nats")
        handles, names = left.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=len(names), frameon=False)
        figure.savefig(picture, **how)
    return picture.getvalue()


def _panel(axes: Axes, rows: Sequence[Row], values: Sequence[float | None], title: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for index, system in enumerate(dict.fromkeys(row.system for row in rows)):
        points = sorted(
            (row.bits_per_weight, value)
            for row, value in zip(rows, values, strict=True)
            if row.system == system and value is not None and 0 < value < math.inf
        )
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=SERIES[index % len(SERIES)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=5.5,
            linewidth=1.8,
            label=system,
        )
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # Within one decade powers of ten say too little: the fewer decades, the more ticks each.
    if high / low < 3:
        axes.yaxis.set_major_locator(MaxNLocator(6))
    else:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if high / low < 30 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("bits per weight, everything stored counted")
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.grid(True, which="major", color=GRID, linewidth=0.8)
    axes.minorticks_off()
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
