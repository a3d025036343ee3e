"""Where calibration activations live: in memory, or on disk when they are large."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import torch

from subbyte.errors import OutputError

__all__ = ["IN_MEMORY", "allocate"]

IN_MEMORY = 4 << 30
"""Bytes above which activations are mapped from a file."""


def allocate(shape: tuple[int, ...], limit: int = IN_MEMORY, folder: Path | None = None) -> torch.Tensor:
    """An uninitialised f32 tensor; above `limit` bytes it is mapped from a nameless file in `folder` (the system's
    temporary folder unless given), which vanishes with the tensor, even after a kill.

    Raises OutputError when the disk has no room: the space is taken at once, because a map that runs out of disk later
    would end the process with a signal.
    """
    count = math.prod(shape)
    if 4 * count <= limit:
        return torch.empty(shape)
    descriptor, path = tempfile.mkstemp(prefix="subbyte-activations-", dir=folder)
    try:
        os.posix_fallocate(descriptor, 0, 4 * count)
        return torch.from_file(path, shared=True, size=count, dtype=torch.float32).reshape(shape)
    except OSError as problem:
        raise OutputError(
            f"activations in {Path(path).parent}",
            problem.strerror or problem,
            f"{4 * count / 2**30:.1f} GiB of free space",
            "set TMPDIR to a larger disk, or use fewer calibration samples",
        ) from problem
    finally:
        os.close(descriptor)
        Path(path).unlink()
