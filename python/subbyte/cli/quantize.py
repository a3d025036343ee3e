"""`subbyte quantize`: a model folder in, a quantized model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from subbyte.cli import output
from subbyte.cli.output import as_json, fact, megabytes, note
from subbyte.cli.settings import recipe as chosen_recipe

if TYPE_CHECKING:
    from subbyte.pipeline import Progress, Result


def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a float model.", show_default=False)],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write; must not exist, or be empty.", show_default=False)
    ],
    system: Annotated[
        str | None, typer.Option(help="A published system; `subbyte systems` lists them.", show_default=False)
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(help="Bits of a weight's code; without it the system's default.", show_default=False),
    ] = None,
    group_size: Annotated[
        int | None, typer.Option(help="Input columns that share a scale, -1: a whole row.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="An option of the system, as often as needed.", show_default=False
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="YAML or JSON file with a recipe, in place of --system.", show_default=False)
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Text, JSONL or token file; without it half of pydoc's topics.", show_default=False),
    ] = None,
    samples: Annotated[int, typer.Option(help="Calibration sequences.", min=1)] = 128,
    seq_len: Annotated[int, typer.Option(help="Tokens of a calibration sequence.", min=2)] = 256,
    format: Annotated[str, typer.Option(help="auto, compressed-tensors, subbyte's own, or vptq.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run of the same command.")] = False,
    seed: Annotated[int, typer.Option(help="Which calibration sequences are drawn.")] = 0,
    verify: Annotated[bool, typer.Option(help="Read the output back and compare logits.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Quantize a model.

    Takes a published system, or a recipe of your own. Works block by block, so memory is bounded by one block, and
    finished blocks are on disk at once.

    Examples:

    - `subbyte quantize model out --system gptq --bits 4 --group-size 128`
    - `subbyte quantize model out --system awq --set clip=false --calibration text.txt`
    - `subbyte quantize model out --recipe recipe.yaml --resume`
    """
    made = chosen_recipe(system, recipe, bits, group_size, settings or [])
    from subbyte.evaluate import checkpoint_size
    from subbyte.pipeline import quantize as run

    with output.Progress("blocks") as bar:
        try:
            result = run(
                model,
                made,
                out,
                calibration=calibration,
                samples=samples,
                seq_len=seq_len,
                seed=seed,
                format=format,
                resume=resume,
                verify=verify,
                progress=lambda progress: _show(bar, progress),
            )
        except KeyboardInterrupt:
            note(f"finished blocks are kept in {out}.partial: repeat the command with --resume to go on")
            raise
    size = checkpoint_size(result.out)
    loading = _loading(result)
    notes = [text for block in result.blocks for text in _notes(block)]
    if json:
        data = {
            "out": str(result.out),
            "format": result.format,
            "recipe": made.to_data(),
            "scheme": size.scheme,
            "bits_per_weight": size.bits_per_weight,
            "model_bytes": size.model_bytes,
            "error": result.error,
            "verified": result.verified,
            "seconds": result.seconds,
            "expected": {"peak_bytes": result.plan.peak_bytes, "seconds": result.plan.seconds},
            "notes": [*result.plan.notes, *result.notes, *notes],
            "load": loading,
        }
        as_json(data)
        return
    for text in notes:
        note(f"note: {text}")
    if result.verified is not None:
        fact("verified", f"read back, its logits differ by {result.verified:.1e} (at most 1e-3)")
    fact("bits per weight", f"{size.bits_per_weight:.3f} ({size.scheme})")
    fact("relative error", f"{result.error:.4f} of the last block's outputs")
    fact("seconds", f"{result.seconds:.1f}")
    fact("output", f"{result.out} ({result.format}, {megabytes(size.model_bytes)})")
    for line in loading:
        fact("load it", line)


def _show(bar: output.Progress, progress: Progress) -> None:
    error = "" if progress.error is None else f"error {progress.error:.4f}"
    if progress.stage == "plan" and progress.plan is not None:
        bar.line(progress.message)
        for text in progress.plan.notes:
            bar.line(f"note: {text}")
        bar.tick(progress.done, progress.total)
    elif progress.stage == "block":
        bar.tick(progress.done, progress.total, error)
        if not bar.live:
            times = f"{progress.seconds:.1f} s, {progress.eta:.0f} s to go"
            bar.line(f"block {progress.done} of {progress.total}: {error}, {times}")
    else:
        words = {"rest": "writing embeddings, norms and head", "tune": "training all blocks", "verify": "reading back"}
        bar.tick(progress.done, progress.total, words.get(progress.stage, error))


def _notes(block: Any) -> list[str]:
    return [*block.notes, *(f"{layer.name}: {layer.note}" for layer in block.layers if layer.note)]


def _loading(result: Result) -> list[str]:
    """Lines of Python that load the output."""
    lines = [f"subbyte.load({str(result.out)!r})"]
    if result.format == "compressed-tensors":
        lines.insert(0, f"transformers.AutoModelForCausalLM.from_pretrained({str(result.out)!r})")
    return lines
