"""Exit codes: 2 with a message for bad input, 130 for Ctrl-C, the exception itself for what nobody expected."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from subbyte.cli.failures import Failures
from subbyte.errors import ShapeError

app = typer.Typer(cls=Failures)


@app.command()
def bad(json: Annotated[bool, typer.Option("--json")] = False) -> None:
    raise ShapeError("group_size", 96, "a divisor of 256", "pass 64 [or] 128")


@app.command()
def interrupted() -> None:
    raise KeyboardInterrupt


@app.command()
def broken() -> None:
    raise ZeroDivisionError


@app.command()
def bare(module: str) -> None:
    raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def test_a_missing_extra_is_told_with_the_command_that_brings_it() -> None:
    result = CliRunner().invoke(app, ["bare", "transformers.models"])
    assert result.exit_code == 2
    assert "transformers: given not installed" in result.stderr
    assert "hint: pip install 'subbyte[hf]'" in result.stderr
    assert CliRunner().invoke(app, ["bare", "subbyte.typo"]).exit_code == 1


def test_bad_input_is_told_with_its_hint() -> None:
    result = CliRunner().invoke(app, ["bad"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "error: group_size: given 96, expected a divisor of 256\nhint: pass 64 [or] 128\n"


def test_json_tells_the_error_field_by_field() -> None:
    result = CliRunner().invoke(app, ["bad", "--json"])
    assert result.exit_code == 2
    fields = {"class": "ShapeError", "what": "group_size", "given": "96", "expected": "a divisor of 256"}
    assert json.loads(result.stdout) == {"error": {**fields, "hint": "pass 64 [or] 128"}}


def test_ctrl_c_leaves_with_130() -> None:
    assert CliRunner().invoke(app, ["interrupted"]).exit_code == 130


def test_the_unexpected_leaves_with_1_and_shows_itself() -> None:
    result = CliRunner().invoke(app, ["broken"])
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("arguments", [["no-such-command"], ["bad", "--no-such-option"]])
def test_wrong_usage_leaves_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "o such" in result.stderr
