"""quantize: a float checkpoint in, a quantized checkpoint out, one block in memory at a time."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from subbyte.calibration import Block, tokens
from subbyte.calibration.storage import allocate
from subbyte.checkpoint import load
from subbyte.errors import ArchitectureError, CalibrationError, OutputError, SubbyteError
from subbyte.outliers.gradient import locate
from subbyte.pipeline.allocation import allotted
from subbyte.pipeline.finetune import settled, trainable, tune_block, tune_model
from subbyte.pipeline.job import Job, prepare
from subbyte.pipeline.plan import plan
from subbyte.pipeline.progress import BlockReport, Callback, LayerReport, Plan, Progress, Result
from subbyte.pipeline.rounding import DTYPES, Rounded, round_block
from subbyte.pipeline.staging import Staging
from subbyte.pipeline.verify import LAST, Written, compare, relative
from subbyte.recipe import Recipe, Training
from subbyte.schemes import Scheme
from subbyte.solvers import Apart, PowerSearch

__all__ = ["quantize"]

Calibration = str | os.PathLike[str] | torch.Tensor | NDArray[np.integer[Any]] | None
PROBES, PROBE_LENGTH = 2, 64
REST = 256 << 20
"""Embeddings, head and the like are copied in shards of about this size, as each shard is in memory once."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".index.json")


@overload
def quantize(
    model: str | os.PathLike[str] | nn.Module,
    recipe: Recipe,
    out: None = None,
    *,
    calibration: Calibration = ...,
    samples: int = ...,
    seq_len: int = ...,
    seed: int = ...,
    format: str = ...,
    verify: bool = ...,
    progress: Callback | None = ...,
) -> nn.Module: ...


@overload
def quantize(
    model: str | os.PathLike[str] | nn.Module,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    calibration: Calibration = ...,
    samples: int = ...,
    seq_len: int = ...,
    seed: int = ...,
    format: str = ...,
    resume: bool = ...,
    verify: bool = ...,
    progress: Callback | None = ...,
) -> Result: ...


def quantize(
    model: str | os.PathLike[str] | nn.Module,
    recipe: Recipe,
    out: str | os.PathLike[str] | None = None,
    *,
    calibration: Calibration = None,
    samples: int = 128,
    seq_len: int = 256,
    seed: int = 0,
    format: str = "auto",
    resume: bool = False,
    verify: bool = True,
    progress: Callback | None = None,
) -> Result | nn.Module:
    """Quantizes a model folder, or a transformers model in memory, by a recipe.

    model        a folder with config.json and safetensors; or a model, which is saved to a temporary folder first
    out          the folder to write; None: nothing is kept, the result is the quantized model itself
    calibration  a text, .jsonl, .npy or .safetensors file, or tokens [S, T]; None: the text that CPython carries. Not
                 read where the recipe asks for no statistics
    samples, seq_len   windows drawn from the text, and their tokens
    seed         of that draw: the same arguments give the same bytes
    format       a checkpoint format, or "auto": the first that holds the schemes
    resume       go on with an unfinished run of the same arguments; its finished blocks are on disk in `out`.partial
    verify       read the output back at the end and compare logits
    progress     is called with a `Progress` before, after each block, and at the end

    returns      `Result`, or the model where `out` is None
    Memory: one block in f32, the calibration activations [S, T, H] and the statistics of one block.
    Raises the errors of `subbyte.errors`; a bad argument before anything is written. After an OutputError on the way
    (no space left) finished blocks stay for `resume`; any other error leaves nothing behind.
    """
    with _folder(model) as path, tempfile.TemporaryDirectory(prefix="subbyte-") as scratch:
        target = Path(scratch) / "model" if out is None else Path(out)
        job = prepare(path, recipe, format)
        chosen = _tokens(job, calibration, samples, seq_len, seed)
        run = _Run(job, target, chosen, seed, progress)
        result = run.finish(resume, verify)
        return load(target) if out is None else result


class _Run:
    """One run of a job: `finish` does it all."""

    def __init__(self, job: Job, out: Path, tokens: torch.Tensor | None, seed: int, progress: Callback | None) -> None:
        self.job = job
        self.tokens = tokens
        self.progress = progress or (lambda _: None)
        self.started = time.perf_counter()
        self.note = ""
        self.blocks = job.anatomy.n_blocks
        self.rest = list(_portions(job))
        digest = hashlib.sha256(tokens.numpy().tobytes() if tokens is not None else b"").hexdigest()
        journal = {**job.fingerprint(), "recipe": job.recipe.to_data(), "calibration": digest, "seed": seed}
        self.staging = Staging(out, journal, job.format.stem, self.blocks + len(self.rest))
        self.probe = _probe(job, tokens, seed)

    def finish(self, resume: bool, verify: bool) -> Result:
        """The whole run; see `quantize`."""
        staging = self.staging
        if resume and staging.finished():
            return self._finished_before()
        staging.check(resume)
        shape = (0, 0) if self.tokens is None else (len(self.tokens), self.tokens.shape[1])
        stated = plan(self.job, *shape)
        self._tell("plan", 0, plan=stated, message=str(stated))
        done: list[int] = []
        try:
            done = staging.begin(self.job.config())
            self._allot()
            self._settle([_read_report(staging.report(i)) for i in done if i < self.blocks])
            reports, expected = self._blocks(done)
            self._tell("rest", self.blocks, error=reports[-1].error)
            self._write_rest(done)
            if self.job.recipe.tune_model and self.tokens is not None:
                self._tell("tune", self.blocks, error=reports[-1].error)
                reports, expected = self._tune(self.tokens, self.job.recipe.tune_model, reports)
            verified = None
            if verify:
                self._tell("verify", self.blocks, error=reports[-1].error)
                verified = compare(self.job, self.staging.model, self.probe, expected)
            self.staging.publish()
        except OutputError as error:
            if not done and not staging.any_finished():
                staging.discard()
                raise
            what, given, expectation, hint = error.args
            kept = f"finished blocks are kept in {staging.folder}: go on with resume (--resume)"
            raise OutputError(what, given, expectation, f"{hint}; {kept}" if hint else kept) from error
        except SubbyteError:
            staging.discard()
            raise
        self._tell("done", self.blocks, error=reports[-1].error)
        return self._result(stated, reports, verified)

    def _blocks(self, done: list[int]) -> tuple[list[BlockReport], torch.Tensor]:
        """All blocks; the reports, and the logits of the quantized model on the probe."""
        self.job = _over_all(self.job)
        job, stream = self.job, self.job.stream
        located = self._locate()
        streamed = self.tokens is not None and bool(job.recipe.wanted - {"apart", "fisher"})
        hidden = stream.embed(self.tokens) if streamed and self.tokens is not None else None
        if hidden is None or self.tokens is None or not torch.equal(self.tokens[: len(self.probe)], self.probe):
            exact = stream.embed(self.probe)
        else:
            exact = hidden[: len(self.probe)].clone()
        rounded = exact.clone()
        compensates, training = job.recipe.compensate > 0, job.recipe.tune_blocks
        beside = None
        if (compensates or training) and hidden is not None:
            beside = allocate(tuple(hidden.shape)).copy_(hidden)
        written = Written(job, self.staging.model, self.probe, growing=True) if done else None
        reports: list[BlockReport] = []
        begun = time.perf_counter()
        for i in range(self.blocks):
            block = stream.block(i)
            exact = block.forward(exact, out=exact)
            if i in done and written is not None:
                again = written.block(i)
                if hidden is not None:
                    hidden = (again if job.recipe.propagate == "quantized" else block).forward(hidden, out=hidden)
                if beside is not None:
                    beside = block.forward(beside, out=beside)
                rounded = again.forward(rounded, out=rounded)
                reports.append(_read_report(self.staging.report(i)))
            else:
                # What transforms did to a block, a run that goes on cannot repeat: there the block as it was tells.
                afresh = bool(job.recipe.transforms or training)
                after = block.forward(beside) if beside is not None and afresh else beside
                inputs = hidden.clone() if training and hidden is not None else None
                made, hidden = round_block(job, i, block, hidden, beside if compensates else None, located)
                beside = after
                if training and inputs is not None and after is not None:
                    made = tune_block(job, block, made, inputs, after, training)
                    if hidden is not None and job.recipe.propagate == "quantized":
                        hidden = block.forward(inputs, out=inputs)
                rounded = block.forward(rounded, out=rounded)
                notes = (self.note, *made.notes) if i == 0 and self.note else made.notes
                report = BlockReport(i, relative(rounded, exact), made.reports, notes)
                self._settle([report])
                self.staging.write(i, self._tensors(i, block, made), asdict(report))
                reports.append(report)
            seconds = time.perf_counter() - begun
            eta = seconds / (i + 1) * (self.blocks - i - 1)
            self._tell("block", i + 1, error=reports[-1].error, block=reports[-1], eta=eta)
        return reports, stream.logits(rounded[:, -LAST:])

    def _tune(
        self, tokens: torch.Tensor, training: Training, reports: list[BlockReport]
    ) -> tuple[list[BlockReport], torch.Tensor]:
        """All blocks trained together and written again; the reports and the logits as of `_blocks`."""
        job, stream = self.job, self.job.stream
        outputs, exact = stream.embed(tokens), []
        for i in range(self.blocks):
            outputs = stream.block(i).forward(outputs, out=outputs)
            exact.append(outputs[: len(self.probe)].clone())  # the probe is the first of the tokens
        written = Written(job, self.staging.model, tokens)
        blocks = [written.block(i, trainable) for i in range(self.blocks)]
        with written.stream.head() as head:
            losses = tune_model(blocks, head, written.hidden, outputs, training, job.anatomy.encoder)
        note = f"tuned with all blocks: loss {losses[0]:.3g} -> {losses[1]:.3g} on sequences held out"
        self.staging = self.staging.again()
        self.staging.begin(job.config())
        rounded = written.hidden[: len(self.probe)].clone()
        tuned = []
        for i, report in enumerate(reports):
            layers = settled(job, blocks[i])
            rounded = blocks[i].forward(rounded, out=rounded)
            notes = (*report.notes, note) if i + 1 == self.blocks else report.notes
            made = Rounded(layers, report.layers, notes)
            tuned.append(replace(report, error=relative(rounded, exact[i]), notes=made.notes))
            self.staging.write(i, self._tensors(i, blocks[i], made), asdict(tuned[i]))
        self._write_rest([])
        return tuned, stream.logits(rounded[:, -LAST:])

    def _allot(self) -> None:
        """The schemes of the layers, where the recipe leaves them a choice."""
        if self.job.recipe.allocate is None or self.tokens is None:
            return
        schemes, self.note = allotted(self.job, self.tokens)
        self._take({name: str(scheme) for name, scheme in schemes.items()})

    def _settle(self, reports: list[BlockReport]) -> None:
        """Lets config.json say by which schemes finished blocks were rounded."""
        self._take({layer.name: layer.scheme for report in reports for layer in report.layers})

    def _take(self, schemes: Mapping[str, str]) -> None:
        if self.job.settle(schemes):
            self.staging.configure(self.job.config())

    def _locate(self) -> dict[str, torch.Tensor]:
        """The places of outliers, for a solver that wants them from the whole float model."""
        solver = self.job.recipe.solver
        if not isinstance(solver, Apart) or self.tokens is None or not solver.share:
            return {}
        chosen = self.tokens[: solver.samples]
        return locate(self.job.stream, chosen, self.job.schemes.keys(), solver.share, solver.score, solver.reduce)

    def _tensors(self, i: int, block: Block, made: Rounded) -> dict[str, object]:
        """What shard i holds: the quantized linears in the format's tensors, everything else in the source's dtype."""
        source = self.job.source
        tensors: dict[str, object] = {}
        for name, layer in made.layers.items():
            tensors.update(self.job.format.tensors(name, layer, layer.weight.scheme.scale_dtype))
        parameters = block.parameters()
        for name in self.job.tensors_of(i):
            if name.rpartition(".")[0] in made.layers and name.endswith(".weight"):
                continue
            dtype = DTYPES.get(source.dtype(name))
            kept = parameters.get(name)
            tensors[name] = source.raw(name) if kept is None or dtype is None else kept.detach().to(dtype)
        return tensors

    def _write_rest(self, done: list[int]) -> None:
        """What belongs to no block, as it is; and the small files of the folder, tokenizer and all."""
        source = self.job.source
        for k, names in enumerate(self.rest, start=self.blocks):
            if k not in done:
                self.staging.write(k, {name: source.raw(name) for name in names}, {})
        folder = source.path if source.path.is_dir() else source.path.parent
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name != "config.json" and not path.name.endswith(WEIGHTS):
                self.staging.copy(path)

    def _finished_before(self) -> Result:
        """The result of a run that was killed after its last step, or is repeated."""
        reports = [_read_report(self.staging.report(i, published=True)) for i in range(self.blocks)]
        self.staging.discard()
        shape = (0, 0) if self.tokens is None else (len(self.tokens), self.tokens.shape[1])
        stated = replace(plan(self.job, *shape), resumed=self.blocks)
        self._tell("plan", self.blocks, plan=stated, message=f"{self.staging.out} is finished already")
        self._tell("done", self.blocks, error=reports[-1].error)
        return self._result(stated, reports, None)

    def _result(self, stated: Plan, reports: list[BlockReport], verified: float | None) -> Result:
        sizes = {name: int(np.prod(self.job.source.shape(f"{name}.weight"))) for name in self.job.schemes}
        layers = [layer for report in reports for layer in report.layers]
        bits = sum(layer.bits_per_weight * sizes[layer.name] for layer in layers) / sum(sizes.values())
        seconds = time.perf_counter() - self.started
        return Result(self.staging.out, self.job.format.name, stated, tuple(reports), bits, seconds, verified)

    def _tell(
        self,
        stage: Any,
        done: int,
        *,
        error: float | None = None,
        eta: float = 0.0,
        message: str = "",
        plan: Plan | None = None,
        block: BlockReport | None = None,
    ) -> None:
        seconds = time.perf_counter() - self.started
        eta = plan.seconds if plan is not None else eta
        self.progress(Progress(stage, done, self.blocks, seconds, eta, error, message, plan, block))


def _over_all(job: Job) -> Job:
    """The job, with what its solver finds in the weights of the whole float model before any is rounded."""
    solver = job.recipe.solver
    if not isinstance(solver, PowerSearch) or solver.scope != "model" or solver.exponent is not None:
        return job

    def weights() -> Iterator[tuple[NDArray[np.float32], Scheme]]:
        for name, scheme in job.schemes.items():
            yield job.source.read(f"{name}.weight").float().numpy(), scheme

    return replace(job, recipe=replace(job.recipe, solver=solver.over(weights)))


def _tokens(job: Job, calibration: Calibration, samples: int, seq_len: int, seed: int) -> torch.Tensor | None:
    """The calibration tokens [S, T], None where the recipe asks for no statistics."""
    if not job.recipe.wanted:
        return None
    if calibration is None or isinstance(calibration, str | os.PathLike):
        found = None if calibration is None else Path(calibration)
        given = tokens(found, _tokenizer(job), samples, seq_len, seed)
    else:
        given = torch.as_tensor(calibration)
    if given.ndim != 2 or 0 in given.shape or given.is_floating_point() or given.dtype == torch.bool:
        raise CalibrationError(
            "calibration", f"{given.dtype} {list(given.shape)}", "integer tokens [sequences, tokens], at least one"
        )
    if len(given) < 2 and (job.recipe.tune_blocks or job.recipe.tune_model):
        expected = "at least 2: training holds some out"
        raise CalibrationError("calibration", f"{len(given)} sequence", expected, "raise samples (--samples)")
    return given.long().contiguous()


def _tokenizer(job: Job) -> Path:
    """The folder of the model's tokenizer: a model given in memory may remember where it came from."""
    folder = job.source.path
    origin = Path(str(job.source.config.get("_name_or_path") or folder))
    if not (folder / "tokenizer.json").is_file() and (origin / "tokenizer.json").is_file():
        return origin
    return folder


def _probe(job: Job, tokens: torch.Tensor | None, seed: int) -> torch.Tensor:
    """A few sequences for the running error and the check at the end: of the calibration, else random tokens."""
    if tokens is not None:
        return tokens[:PROBES].clone()
    config = job.source.config
    length = min(PROBE_LENGTH, int(config.get("max_position_embeddings") or PROBE_LENGTH))
    vocabulary = job.source.shape(f"{job.anatomy.embedding[0]}.weight")[0] if job.anatomy.embedding else 1
    drawn = np.random.default_rng(seed).integers(0, vocabulary, (PROBES, length))
    return torch.from_numpy(drawn)


def _portions(job: Job) -> Iterator[list[str]]:
    """The tensors outside the blocks, in portions of about REST bytes."""
    portion: list[str] = []
    size = 0
    for name in job.tensors_outside():
        if portion and size + job.source.nbytes(name) > REST:
            yield portion
            portion, size = [], 0
        portion.append(name)
        size += job.source.nbytes(name)
    if portion:
        yield portion


def _read_report(data: Mapping[str, Any]) -> BlockReport:
    layers = tuple(LayerReport(**layer) for layer in data["layers"])
    return BlockReport(data["index"], data["error"], layers, tuple(data["notes"]))


@contextmanager
def _folder(model: str | os.PathLike[str] | nn.Module) -> Iterator[Path]:
    """The folder of a model. One that is given in memory is saved as transformers would: only so its tensors have the
    checkpoint's names (transformers renames and merges weights while loading)."""
    if isinstance(model, str | os.PathLike):
        yield Path(model)
        return
    save = getattr(model, "save_pretrained", None)
    if save is None:
        raise ArchitectureError(
            "model", type(model).__name__, "a folder, or a transformers model", "save other models as a folder first"
        )
    with tempfile.TemporaryDirectory(prefix="subbyte-model-") as folder:
        save(folder)
        yield Path(folder)
