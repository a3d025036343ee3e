"""Exceptions to exit codes: 2 for what the user gave, 130 for Ctrl-C, and 1 with a traceback for what is our fault."""

from __future__ import annotations

import json
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from subbyte.errors import DependencyError, SubbyteError

__all__ = ["Failures"]

# Top-level module -> the extra of subbyte that brings it; torch alone is of no use to a command.
EXTRAS = {
    "torch": "hf",
    "transformers": "hf",
    "tokenizers": "hf",
    "accelerate": "hf",
    "compressed_tensors": "hf",
    "yaml": "hf",
    "jinja2": "plot",
    "matplotlib": "plot",
}


class Failures(TyperGroup):
    """The command group: a `SubbyteError` of any command is told on stderr, and with `--json` on stdout too."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; leave with 2 after a `SubbyteError` or a missing extra, with 130 after Ctrl-C."""
        wants_json = "--json" in ctx.args  # read now: running the command uses the arguments up
        try:
            return super().invoke(ctx)
        except SubbyteError as error:
            _tell(error, wants_json)
            raise typer.Exit(2) from error
        except ModuleNotFoundError as error:
            module = (error.name or "").partition(".")[0]
            if module not in EXTRAS:
                raise  # no optional package: a mistake of ours
            hint = f"pip install 'subbyte[{EXTRAS[module]}]'"
            _tell(DependencyError(module, "not installed", "an optional package of this command", hint), wants_json)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            Console(stderr=True).print("interrupted")
            raise typer.Exit(130) from error


def _tell(error: SubbyteError, wants_json: bool) -> None:
    what, given, expected, hint = error.args
    lines = Text.assemble(("error: ", "bold red"), f"{what}: given {given}, expected {expected}")
    if hint:
        lines.append("\nhint: ", "bold").append(str(hint))
    Console(stderr=True, highlight=False, soft_wrap=True).print(lines)
    if wants_json:
        fields = {"class": type(error).__name__, "what": what, "given": given, "expected": expected, "hint": hint}
        print(json.dumps({"error": {key: str(value) for key, value in fields.items()}}, indent=2))
