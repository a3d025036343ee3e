"""What a run will need, said before it starts: peak memory from shapes, time from shapes and a short measurement."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np

from subbyte.calibration import waiting_bytes
from subbyte.calibration.storage import IN_MEMORY
from subbyte.pipeline.progress import Plan
from subbyte.schemes import Vectors, stored_bytes
from subbyte.solvers import Apart, Bilevel, Gptq, Ldlq, MinMax, PowerLearn, Vptq
from subbyte.transforms import ActivationAwareScale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from subbyte.pipeline.job import Job

__all__ = ["plan"]

ALLOCATOR = 1.15
"""What the process held above the sum of its arrays in the runs of benches/: freed memory that the allocator kept."""

TRAINED = 24
"""Bytes for each weight that learns: what its code stands for, itself, its gradient, the code as a number."""


def plan(job: Job, sequences: int, length: int) -> Plan:
    """The plan of a job calibrated on `sequences` windows of `length` tokens (0: without calibration)."""
    source, anatomy = job.source, job.anatomy
    tokens = sequences * length
    sizes = {name: source.shape(f"{name}.weight") for name in job.schemes}
    parameters = sum(rows * columns for rows, columns in sizes.values())
    blocks = [
        sum(math.prod(source.shape(name)) for name in source.names() if name.startswith(anatomy.block(i) + "."))
        for i in range(anatomy.n_blocks)
    ]
    outside = [math.prod(source.shape(name)) for name in source.names() if not name.startswith(anatomy.blocks + ".")]
    hidden = 0
    if anatomy.embedding and f"{anatomy.embedding[0]}.weight" in source:
        hidden = source.shape(f"{anatomy.embedding[0]}.weight")[-1]

    largest = max(rows * columns for rows, columns in sizes.values())
    widest = max(columns for _, columns in sizes.values())
    gathers = bool(job.recipe.wanted - {"apart", "fisher"})
    needs_gram = "gram" in job.recipe.wanted
    first = anatomy.linears(0)
    grams = sum(sizes[name][1] ** 2 for name in first if name in sizes) if needs_gram else 0
    twins = 2 if job.recipe.compensate else 1  # the float model's block and inputs go along
    in_block = 4 * (twins * max(blocks) + 4 * largest + twins * grams + (3 * widest**2 if needs_gram else 0))
    activations = 4 * tokens * hidden * (2 + twins)
    waiting = twins * waiting_bytes(tokens, hidden, widest) if job.recipe.true_sequential else 0
    waits = waiting <= IN_MEMORY
    activations += waiting if waits else 0
    solver = job.recipe.solver
    allocate = job.recipe.allocate
    located = min(sequences, solver.samples) * length if isinstance(solver, Apart) else 0
    weighed = min(sequences, allocate.sequences) * length if allocate else 0
    if located or weighed:
        # The gradient's pass keeps the inputs of every block, and the gradients of one; GWQ gathers nothing else.
        kept = 4 * max(located, weighed) * hidden * (anatomy.n_blocks + 2)
        activations = kept if not gathers else max(activations, kept)
        in_block += 8 * max(blocks)
    if job.recipe.tune_blocks:
        in_block += TRAINED * max(blocks)
        activations += 8 * tokens * hidden
    if job.recipe.tune_model:
        in_block = max(in_block, TRAINED * sum(blocks) + 4 * max(outside, default=0))
        activations = max(activations, 8 * tokens * hidden)
    # Embedding and head are read in the stored dtype and widened; one at a time.
    peak = _resident() + int(ALLOCATOR * (activations + max(in_block, 6 * max(outside, default=0))))

    forward = 2 * parameters * tokens
    passes = 0.0
    if gathers:
        # One that gathers, stage by stage where the inputs of a stage cannot wait for it; a second one only where the
        # gathering one does not already give what the next block is to see.
        in_turn = job.recipe.true_sequential
        again = in_turn == (job.recipe.propagate == "float")
        passes = (1.0 if waits or not in_turn else len(anatomy.stages(0))) + again
    for transform in job.recipe.transforms:
        passes += transform.grid if isinstance(transform, ActivationAwareScale) else 0
    if located or weighed:
        passes += 4.0 * (located + weighed) / tokens / twins  # forward, forward again, and backward twice as long
    work = passes * twins * forward
    for training in (job.recipe.tune_blocks, job.recipe.tune_model):
        work += (training.epochs + 1) * 3 * forward if training else 0
    if needs_gram:
        work += sum(2 * twins * tokens * columns**2 for _, columns in sizes.values())
    if isinstance(solver, Bilevel | Gptq | Ldlq | MinMax):
        rounds = 1 + 2 * solver.passes if isinstance(solver, Ldlq) else 1
        work += sum(2 * rounds * rows * columns**2 + 2 * columns**3 for rows, columns in sizes.values())
    if isinstance(solver, Ldlq) and solver.rounding == "ldlbal_admm":
        # A product in f64, which is half as fast, for each step of `solvers.feedback.bounded`.
        work += sum(2 * 2 * 100 * columns**3 for _, columns in sizes.values())
    if isinstance(solver, Vptq):
        # Each step of k-means and each pass meets all codewords; each pass, and each step of tuning or of a fit, the
        # Gram matrix.
        descents = max(solver.refits, 1) * solver.passes
        for name, (rows, columns) in sizes.items():
            element = job.schemes[name].element
            words = element.count + element.residual if isinstance(element, Vectors) else 0
            met = (solver.iterations + 2 + descents) * words
            met += (solver.tune + 2 + descents + 20 * solver.refits) * columns
            work += 2 * rows * columns * met + 2 * columns**3
    if isinstance(solver, MinMax):
        # Pairs of a row's weights are looked at: what the start and each neighbourhood took in rows of 256 and of 768.
        work += (3000 + 350 * solver.iterations) * sum(rows * columns**2 for rows, columns in sizes.values())
    if isinstance(solver, PowerLearn):
        work += sum(2 * solver.iterations * rows * columns**2 for rows, columns in sizes.values())
    seconds = work / _throughput() + parameters * 2e-8
    return Plan(
        model=str(source.path),
        recipe=job.recipe.name,
        format=job.format.name,
        blocks=anatomy.n_blocks,
        linears=len(job.schemes),
        parameters=parameters,
        tokens=tokens,
        peak_bytes=peak,
        seconds=seconds,
        notes=tuple(note for note in (anatomy.note, _allotted(job, sizes)) if note),
    )


def _allotted(job: Job, sizes: Mapping[str, tuple[int, ...]]) -> str:
    """Within what bounds an allocation stays."""
    if not job.others:
        return ""
    counted = [(stored_bytes(job.schemes[name], (sizes[name][0], sizes[name][1])), sizes[name]) for name in job.schemes]
    bits = 8 * sum(stored for stored, _ in counted) / sum(rows * columns for _, (rows, columns) in counted)
    return f"each layer gets its scheme by sensitivity, all of them together at most {bits:.3f} bits per weight"


def _resident() -> int:
    """Bytes that this process holds now."""
    import resource

    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:  # no Linux: the peak so far, in KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _throughput() -> float:
    """Floating point operations a second of f32 matrix products, measured in a few milliseconds."""
    import torch

    n = 512
    a = torch.from_numpy(np.ones((n, n), np.float32))
    a @ a
    start = time.perf_counter()
    for _ in range(4):
        a @ a
    return 4 * 2 * n**3 / max(time.perf_counter() - start, 1e-6)
