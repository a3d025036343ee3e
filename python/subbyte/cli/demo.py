"""`subbyte demo`: the main job on the model that the package carries, without network or download."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from subbyte.cli.output import note
from subbyte.cli.study import Study, check, show

BITS = (8, 4, 3, 2)
QUICK = {
    "nupes": {"iterations": 60},
    "vptq": {"kmeans_iterations": 20, "tune_iterations": 20},
    "best": {"refits": 1},
    "dmmv": {"iterations": 0, "tokens": 64},
}
"""Systems that learn or search take fewer steps: all of them have three minutes."""


def demo(
    report: Annotated[Path, typer.Option(help="Where the HTML report goes.")] = Path("subbyte-demo.html"),
    picture: Annotated[Path | None, typer.Option(help="Also write the plot here, as PNG.", show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run every system on the embedded model.

    Quantizes it at 8, 4, 3 and 2 bits, measures, and compares; takes two to three minutes on two cores. Calibrates on
    one half of the text that CPython carries (pydoc topics), evaluates on the other; systems that learn take few steps.
    Leaves nothing but the report.

    Examples:

    - `subbyte demo`
    - `subbyte demo --json --report /tmp/demo.html > demo.json`
    - `subbyte demo --picture docs/images/demo.png`
    """
    from subbyte.systems import registry

    check(report, picture)
    note("pydoc-mini: 1.3 M parameters, every system at 8, 4, 3 and 2 bits; two to three minutes")
    systems = sorted(registry(), key=lambda name: name != "rtn")  # what all others are compared with comes first
    with as_file(files("subbyte") / "data" / "pydoc-mini") as model:
        results = Study(model, systems, BITS, group_size=64, options=QUICK, samples=16, windows=24).run()
    show(results, title="Every system on pydoc-mini", command="subbyte demo", report=report, picture=picture, json=json)
