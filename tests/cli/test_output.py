"""Tables, numbers and JSON as a pipe sees them, and as a terminal does."""

from __future__ import annotations

import json

import pytest

from subbyte.cli import output


def test_json_has_null_where_json_has_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    output.as_json({"a": float("inf"), "b": [float("nan"), 1.5], "c": (None, "x")})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": [None, "x"]}


def test_a_pipe_gets_aligned_words_and_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["name", "value"], [["a", "1.5"], ["long name" * 20, "100"]], title="left out")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["name", "value"]
    assert {len(line) for line in lines} == {9 * 20 + 2 + 5}
    assert "\x1b" not in "".join(lines)


def test_a_table_may_have_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["name", "value"], [])
    assert capsys.readouterr().out == "name  value\n"


def test_a_terminal_gets_colour(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    output.table(["name"], [["[bold]x"]], title="T")
    text = capsys.readouterr().out
    assert "\x1b[" in text
    assert "[bold]x" in text


def test_markup_in_names_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.note("pip install 'subbyte[hf]'")
    output.fact("path", "a[red]b")
    captured = capsys.readouterr()
    assert captured.err == "pip install 'subbyte[hf]'\n"
    assert captured.out.split() == ["path", "a[red]b"]


def test_off_a_terminal_progress_is_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    with output.Progress("work") as progress:
        progress.tick(1, 2, "half")
        progress.line("a line [x]")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "a line [x]\n")
