"""`subbyte systems`: the published systems and their options."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from subbyte.cli.output import as_json, fact, table


def systems(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A system, to show its options.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the systems and their options.

    Examples:

    - `subbyte systems`
    - `subbyte systems gptq`
    - `subbyte systems --json`
    """
    from subbyte.systems import System, find, registry

    def data(system: System) -> dict[str, Any]:
        fields = {key: getattr(system, key) for key in ("name", "title", "paper", "summary")}
        return {**fields, "options": [asdict(option) for option in system.options]}

    if name is None:
        known = registry().values()
        if json:
            as_json([data(system) for system in known])
            return
        rows = [[s.name, s.title, s.paper, s.summary] for s in known]
        table(["name", "title", "paper", "what it does"], rows, right=4)
        return
    system = find(name)
    if json:
        as_json(data(system))
        return
    fact(system.name, f"{system.title} ({system.paper})")
    fact("", system.summary)
    print()
    rows = [[o.name, _spelled(o.default), o.type, o.help] for o in system.options]
    table(["--set", "default", "type", "what it does"], rows, right=4)


def _spelled(value: object) -> str:
    """A default as `--set` would take it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
