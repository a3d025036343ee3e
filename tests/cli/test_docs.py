"""docs/cli.md is made from the help texts (`make docs`) and must not fall behind them."""

from __future__ import annotations

from pathlib import Path

import typer

from subbyte.cli import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"


def test_every_command_and_option_is_in_the_page() -> None:
    sections = PAGE.read_text().split("\n## ")
    for name, command in typer.main.get_group(app).commands.items():
        section = next(text for text in sections if text.startswith(f"`subbyte {name}`"))
        for option in command.params:
            assert option.param_type_name == "argument" or f"`{option.opts[0]}" in section, (name, option.opts)
