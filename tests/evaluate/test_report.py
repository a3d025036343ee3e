"""The report is one file that needs no other, says what the rows say, and is written whole or not at all."""

from __future__ import annotations

import builtins
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from subbyte.errors import OutputError
from subbyte.evaluate import Row, plot, report

BASELINE = Row("float", None, "bfloat16", 16.0, 2_627_832, 47.4, None, None, None)
ROWS = [
    Row(system, bits, f"int{bits}/g64", bits + 0.25, 400_000 * bits, 47.4 + loss / bits, loss / bits, 0.9, 1.5)
    for system, loss in (("rtn", 3.0), ("gptq", 1.0))
    for bits in (8, 4, 2)
]


class Links(HTMLParser):
    """Collects what a browser would fetch, and checks that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [
            v or "" for k, v in attrs if k in ("src", "href", "xlink:href") and not (v or "").startswith("#")
        ]
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [
            v or "" for k, v in attrs if k in ("src", "href", "xlink:href") and not (v or "").startswith("#")
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(**changes: Any) -> str:
    given = {"title": "A & B", "text": "some text", "tokens": 51000, "command": "subbyte demo", "facts": {"CPU": "x"}}
    return report.html(BASELINE, ROWS, **{**given, **changes})


def test_needs_nothing_from_outside() -> None:
    links = Links()
    links.feed(page())
    assert links.fetched == []
    assert links.open == []
    assert "url(" not in re.sub(r"url\(#[^)]*\)", "", page())
    assert "<script" not in page()


def test_says_what_the_rows_say() -> None:
    text = page()
    assert "A &amp; B" in text
    assert text.count("<code>int4/g64</code>") == 2
    assert "51,000" in text
    assert text.count('class="best"') == 2 * 3  # perplexity and KL at each of three widths
    assert "prefers-color-scheme: dark" in text


def test_the_plot_is_svg_in_the_colours_of_the_page() -> None:
    pytest.importorskip("matplotlib")
    text = page()
    picture = text[text.index("<svg") : text.index("</svg>") + 6]
    xml = picture.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)
    assert ElementTree.fromstring(xml).tag.endswith("svg")
    assert {"var(--series-0)", "var(--series-1)", "var(--ink)"} <= set(re.findall(r"var\([^)]*\)", picture))
    assert "#1f2328" not in picture
    again = page()
    assert picture == again[again.index("<svg") : again.index("</svg>") + 6]


def test_without_matplotlib_a_note_stands_in_for_the_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    text = page()
    assert "<svg" not in text
    assert "subbyte[plot]" in text
    assert "int4/g64" in text


def test_rows_that_went_to_ruin_can_be_shown() -> None:
    ruined = [Row("rtn", 2, "int2/g64", 2.25, 1000, float("inf"), 12.5, 0.0, 1.0)]
    assert "inf" in report.html(BASELINE, ruined, title="", text="", tokens=1, command="", facts={})


def test_an_unwritable_place_is_told_before_the_work(tmp_path: Path) -> None:
    report.check_writable(tmp_path / "out.html")
    for path in (tmp_path / "missing" / "out.html", tmp_path):
        with pytest.raises(OutputError, match="a file in a folder"):
            report.check_writable(path)
    assert list(tmp_path.iterdir()) == []


def test_the_picture_for_a_readme_is_small() -> None:
    pytest.importorskip("matplotlib")
    picture = plot.png(BASELINE, ROWS)
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 150_000


def test_the_environment_names_processor_and_versions() -> None:
    facts = report.environment()
    assert {"CPU", "Kernels", "Python", "torch"} <= set(facts)
    assert all(facts.values())
