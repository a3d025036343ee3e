"""Blocks of small models for the tests of transforms: real transformers classes, gathered statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import subbyte
from subbyte import anatomy
from subbyte.calibration import Block, Stream, Wanted, gather
from subbyte.checkpoint import Source
from subbyte.schemes import Scheme
from subbyte.transforms import Work

MINI = Path(subbyte.__file__).parent / "data" / "pydoc-mini"
ALL: set[Wanted] = {"gram", "absmax", "absmean", "sample"}


def tokens(vocabulary: int, shape: tuple[int, int] = (4, 24), seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, vocabulary, shape))


def works(
    folder: Path,
    scheme: str = "int4/g32/asym/f32",
    shape: tuple[int, int] = (4, 24),
    stored: torch.dtype = torch.float32,
    wanted: set[Wanted] = ALL,
) -> list[tuple[Work, torch.Tensor]]:
    """For each block of the model in `folder`: what transforms work on, and the block's outputs."""
    source = Source.open(folder)
    parts = anatomy.find(source.config, {name: source.shape(name) for name in source.names()})
    stream = Stream(source.config, parts, source.read)
    hidden = stream.embed(tokens(int(source.config["vocab_size"]), shape))
    made = []
    for i in range(parts.n_blocks):
        block: Block = stream.block(i)
        names = parts.linears(i)
        stats, outputs = gather(block, hidden, names, wanted)
        work = Work(
            block=block,
            pairs=parts.pairs(i, grouped=True),
            schemes=dict.fromkeys(names, Scheme.parse(scheme)),
            stats=stats,
            hidden=hidden,
            stored=stored,
        )
        made.append((work, outputs))
        hidden = outputs
    return made


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|."""
    return float((a.double() - b.double()).norm() / b.double().norm())
