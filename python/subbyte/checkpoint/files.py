"""Files that are there whole or not at all: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from subbyte.checkpoint.raw import HELD_AS, Raw
from subbyte.errors import OutputError

__all__ = ["write_json", "write_shard", "write_whole"]

ALIGNMENT = 8

HINTS = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "your quota is used up: free some space or choose another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "create the folder first",
}


def write_whole(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` with a new file in the folder of `path`, and gives that file its name when all is on the disk.

    Whatever happens in between, a full disk, an exception, Ctrl-C, leaves the folder as it was (a kill leaves a file
    `.<name>.<random>.tmp`, which nobody reads). Raises OutputError for what the file system refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        hint = HINTS.get(error.errno or 0, "nothing was left behind")
        raise OutputError(str(path), reason, "a file that can be written", hint) from error


def write_json(path: str | Path, data: object) -> None:
    """Writes `data` as indented JSON, whole or not at all; OutputError as in `write_whole`."""
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def write_shard(path: str | Path, tensors: Mapping[str, object], metadata: Mapping[str, str] | None = None) -> None:
    """Writes one safetensors file, whole or not at all.

    tensors   by name: NumPy arrays, torch tensors (bf16 keeps its bits) or Raw; one that is not contiguous is copied
    metadata  further text for the header; `{"format": "pt"}` is always there, as transformers refuses files without it

    The same tensors give the same bytes, in whatever order they come: the widest dtypes lie first, so that every tensor
    is aligned, and names are sorted within. Raises OutputError (disk, permissions), DtypeError (no such dtype).
    """
    raws = {name: Raw.of(tensor) for name, tensor in tensors.items()}
    order = sorted(raws, key=lambda name: (-HELD_AS[raws[name].dtype].itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name in order:
        raw = raws[name]
        begin, end = end, end + raw.data.nbytes
        header[name] = {"dtype": raw.dtype, "shape": list(raw.data.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)

    def write(file: BinaryIO) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(np.ascontiguousarray(raws[name].data).reshape(-1).view(np.uint8).data)

    write_whole(path, write)


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
