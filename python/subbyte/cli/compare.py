"""`subbyte compare`: several systems at several widths on one model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from subbyte.cli.settings import integers, names
from subbyte.cli.study import Study, check, show


def compare(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a float model.", show_default=False)],
    systems: Annotated[str, typer.Option(help="Systems, with commas between them.")] = "rtn,gptq,awq",
    bits: Annotated[str, typer.Option(help="Widths, with commas between them.")] = "4,3",
    group_size: Annotated[
        int | None, typer.Option(help="Columns that share a scale, where a system has groups.", show_default=False)
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Text to evaluate on; without it half of pydoc's topics.", show_default=False)
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Text to calibrate on; without it pydoc's other half.", show_default=False)
    ] = None,
    samples: Annotated[int, typer.Option(help="Calibration sequences.", min=1)] = 128,
    seq_len: Annotated[int, typer.Option(help="Tokens of a calibration sequence.", min=2)] = 256,
    window: Annotated[int, typer.Option(help="Tokens of an evaluation window.", min=2)] = 256,
    windows: Annotated[int, typer.Option(help="Evaluation windows; 0: all of the text.", min=0)] = 200,
    seed: Annotated[int, typer.Option(help="Which calibration sequences are drawn.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here.", show_default=False)] = None,
    picture: Annotated[Path | None, typer.Option(help="Also write the plot here, as PNG.", show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare systems on one model.

    Quantizes it with each system at each width, and shows quality, size and time. The quantized models are kept only
    while they are measured.

    Examples:

    - `subbyte compare model --systems rtn,gptq,awq --bits 4,3 --text wikitext2-test.txt`
    - `subbyte compare model --bits 4,3,2 --group-size 64 --report out.html`
    """

    study = Study(
        model,
        names(systems, "--systems"),
        integers(bits, "--bits"),
        group_size=group_size,
        calibration=calibration,
        text=text,
        samples=samples,
        seq_len=seq_len,
        window=window,
        windows=windows,
        seed=seed,
    )
    check(report, picture)
    given = {
        "--systems": systems,
        "--bits": bits,
        "--group-size": group_size,
        "--text": text,
        "--calibration": calibration,
        "--samples": samples,
        "--seq-len": seq_len,
        "--window": window,
        "--windows": windows,
        "--seed": seed,
    }
    options = [str(part) for pair in given.items() if pair[1] is not None for part in pair]
    command = shlex.join(["subbyte", "compare", str(model), *options])
    show(
        study.run(),
        title=f"Systems compared on {model.name}",
        command=command,
        report=report,
        picture=picture,
        json=json,
    )
