"""The command line: one file per command, over the pipeline and the evaluation.

Nothing in this package imports torch before a command that needs it runs, so that `--help`, `systems` and `doctor`
answer at once. `output` prints tables and JSON, `failures` turns exceptions into exit codes, `settings` reads
`--set key=value`, `study` runs the systems-by-bits grid that `demo` and `compare` share.
"""

from __future__ import annotations

import os

from subbyte.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the `subbyte` command; leaves with 0, 1 (unexpected), 2 (bad input) or 130 (interrupted)."""
    # Before torch is loaded: its OpenMP threads spin for milliseconds after each operation, on the cores that the next
    # kernel of ours needs (GPTQ's Gram matrices take a third less time without).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    app(prog_name="subbyte")
