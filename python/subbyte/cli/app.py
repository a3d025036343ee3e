"""The commands, put together."""

from __future__ import annotations

import typer

from subbyte.cli.compare import compare
from subbyte.cli.demo import demo
from subbyte.cli.doctor import doctor
from subbyte.cli.eval import evaluate_command
from subbyte.cli.failures import Failures
from subbyte.cli.inspect import inspect
from subbyte.cli.quantize import quantize
from subbyte.cli.systems import systems

app = typer.Typer(
    cls=Failures,
    help="Quantize language models with published low-bit systems, measure them, and look inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order in which a newcomer meets them.
app.command()(demo)
app.command()(systems)
app.command()(quantize)
app.command("eval")(evaluate_command)  # `eval` is a built-in of Python
app.command()(compare)
app.command()(inspect)
app.command()(doctor)
