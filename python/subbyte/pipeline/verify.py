"""What was written, read back: by a restarted run, and by the check at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from subbyte.calibration import Block, Stream
from subbyte.checkpoint import Source
from subbyte.errors import CheckpointError
from subbyte.pipeline.job import Job
from subbyte.pipeline.rounding import put
from subbyte.tensors import QuantizedLayer

__all__ = ["LAST", "Written", "compare", "relative"]

LAST = 32
"""Positions of each probe sequence whose logits are compared: all of them would not fit beside a large vocabulary."""
TOLERANCE = 1e-3
Place = Callable[[Block, str, QuantizedLayer], None]


class Written:
    """The quantized model in a folder, block by block.

    tokens    of the shape that its blocks will run on
    growing   the folder does not hold everything yet: what it lacks is read from the source
    """

    def __init__(self, job: Job, folder: Path, tokens: torch.Tensor, growing: bool = False) -> None:
        self._job = job
        self._source = Source.open(folder)
        self._growing = growing
        self.stream = Stream(job.source.config, job.anatomy, self._read)
        self.hidden = self.stream.embed(tokens)

    def _read(self, name: str) -> torch.Tensor:
        """A tensor of the model by the name that it has in the source."""
        module, _, leaf = name.rpartition(".")
        if leaf == "weight" and module in self._job.schemes:
            return torch.from_numpy(self._job.format.read(self._source, module).weight.dequantize())
        absent = self._growing and name not in self._source
        return (self._job.source if absent else self._source).read(name)

    def block(self, i: int, place: Place = put) -> Block:
        """Block i, with its quantized linears as `place` puts each of them there."""
        names = [name for name in self._job.anatomy.linears(i) if name in self._job.schemes]
        block = self.stream.block(i, skip=names)
        for name in names:
            self._bias(block, name)
            place(block, name, self._job.format.read(self._source, name))
        return block

    def _bias(self, block: Block, name: str) -> None:
        """The bias of a linear whose weight was not read."""
        linear: Any = block.get(name)
        if linear.bias is not None:
            bias = self._source.read(f"{name}.bias").float()
            linear.bias = torch.nn.Parameter(bias, requires_grad=False)


def compare(job: Job, folder: Path, tokens: torch.Tensor, expected: torch.Tensor) -> float:
    """The relative difference between the logits of the model in `folder` and `expected` [S, LAST, V].

    The model is embedded, run and read block by block, on its codes. Raises CheckpointError above 1e-3.
    """
    written = Written(job, folder, tokens)
    hidden = written.hidden
    for i in range(job.anatomy.n_blocks):
        hidden = written.block(i, partial(put, codes=True)).forward(hidden, out=hidden)
    difference = relative(written.stream.logits(hidden[:, -LAST:]), expected)
    if not difference <= TOLERANCE:
        raise CheckpointError(
            str(folder),
            f"logits that differ by {difference:.2g} from those of the run",
            f"at most {TOLERANCE:g}",
            "please report this: what was written is not what was computed",
        )
    return difference


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|, in f64."""
    size = float(torch.linalg.vector_norm(b.double()))
    difference = float(torch.linalg.vector_norm(a.double() - b.double()))
    return difference / size if size else difference
