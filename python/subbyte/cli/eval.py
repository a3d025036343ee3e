"""`subbyte eval`: perplexity of a model, and how far it is from a baseline."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from subbyte.cli.output import Progress, as_json, fact, megabytes, number


def evaluate_command(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder of a float or quantized model.", show_default=False)
    ],
    text: Annotated[
        Path | None,
        typer.Option(help="Text, JSONL or token file; without it half of pydoc's topics.", show_default=False),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Float model to compare with: adds KL and agreement.", show_default=False)
    ] = None,
    window: Annotated[int, typer.Option(help="Tokens of a window, the first replaced by bos.", min=2)] = 256,
    windows: Annotated[int, typer.Option(help="Windows from the start of the text; 0: all.", min=0)] = 200,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a model.

    Perplexity, and against a baseline also KL divergence and top-1 agreement. Of an encoder, whose baseline must be
    given: the cosine between its text embeddings and those of the baseline. Quantized models run on their packed codes.

    Examples:

    - `subbyte eval out --baseline model`
    - `subbyte eval out --text wikitext2-test.txt --windows 0 --json`
    """
    from subbyte.calibration import windows as cut
    from subbyte.checkpoint import load
    from subbyte.evaluate import checkpoint_size, evaluate, similarity

    size = checkpoint_size(model)
    tokens = cut(text, model, window, windows or None)
    measured, reference = load(model), None if baseline is None else load(baseline)
    about = {"model": str(model), "text": None if text is None else str(text)}
    if reference is not None and cast("Any", measured).get_output_embeddings() is None:
        near = similarity(measured, reference, tokens, size=size)
        if json:
            as_json({**about, **asdict(near)})
            return
        fact("cosine to the baseline", f"{near.cosine:.5f}, at least {near.lowest:.5f}")
        fact("bits per weight", f"{near.bits_per_weight:.3f} ({size.scheme})")
        fact("size", megabytes(near.model_bytes))
        fact("tokens", f"{near.tokens} in {near.windows} windows")
        fact("seconds", f"{near.seconds:.1f}")
        return
    with Progress("evaluating") as progress:
        got = evaluate(
            measured,
            tokens,
            reference,
            size=size,
            progress=lambda done, total, so_far: progress.tick(done, total, f"perplexity {number(so_far)}"),
        )
    if json:
        as_json({**about, **asdict(got)})
        return
    fact("perplexity", number(got.perplexity))
    if got.kl is not None and got.top1_agreement is not None:
        fact("KL to the baseline", f"{number(got.kl)} nats")
        fact("top-1 agreement", f"{100 * got.top1_agreement:.2f} %")
    fact("bits per weight", f"{got.bits_per_weight:.3f} ({size.scheme})")
    fact("size", megabytes(got.model_bytes))
    fact("tokens", f"{got.tokens} in {got.windows} windows")
    fact("seconds", f"{got.seconds:.1f}")
