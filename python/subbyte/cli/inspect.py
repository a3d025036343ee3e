"""`subbyte inspect`: what a model folder holds, tensor by tensor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from subbyte.cli.output import as_json, fact, megabytes, number, table


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Model folder or .safetensors file.", show_default=False)
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(help="The float model it was made from: adds each layer's relative error.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look inside a model folder.

    Shows every tensor: scheme, bits per weight, size, error and outliers; a quantized layer is one line. `error` is
    |W - W'| / |W| against the baseline; AWQ and SmoothQuant change weights on purpose, so theirs says little. `peak` is
    max|w| over the root mean square of a float matrix, `beyond` the share of its weights that are further out than six
    standard deviations.

    Examples:

    - `subbyte inspect out`
    - `subbyte inspect out --baseline model --json`
    """
    from subbyte.checkpoint import inspect as reports

    found = reports(path, baseline)
    stored = sum(tensor.nbytes for tensor in found if tensor.quantized)
    weights = sum(tensor.shape[0] * tensor.shape[1] for tensor in found if tensor.quantized)
    total = sum(tensor.nbytes for tensor in found)
    bits = 8 * stored / weights if weights else None
    if json:
        tensors = [asdict(tensor) for tensor in found]
        as_json({"path": str(path), "bits_per_weight": bits, "bytes": total, "tensors": tensors})
        return
    columns = ["tensor", "shape", "scheme", "bits/weight", "size", "error", "peak", "beyond"]
    rows = [
        [
            tensor.name,
            " x ".join(map(str, tensor.shape)),
            tensor.scheme,
            f"{tensor.bits_per_weight:.3g}",
            megabytes(tensor.nbytes),
            number(tensor.error, 3),
            number(tensor.peak, 3),
            number(tensor.beyond, 2),
        ]
        for tensor in found
    ]
    table(columns, rows, right=3)
    print()
    fact("size", megabytes(total))
    if bits is not None:
        fact("bits per weight", f"{bits:.3f} in {sum(tensor.quantized for tensor in found)} quantized layers")
