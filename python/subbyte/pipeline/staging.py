"""The folder in which an output grows: shard by shard, whole or not at all, so that a killed run can go on.

    OUT.partial/journal.json      what the run was asked to do
    OUT.partial/model/            the checkpoint so far: a shard per finished block, and an index that names those
    OUT.partial/tuned/            the whole checkpoint once more, where all blocks are trained together at the end

Each file is written under a temporary name, synced and renamed. The index is rewritten after each block: a block is
finished when the index names its shard. At the end `model`, or `tuned`, is renamed to OUT, and OUT.partial goes. A run
that was killed while it trained finds `model` whole and trains again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subbyte.checkpoint import Raw, Source, write_json, write_shard
from subbyte.errors import CheckpointError, OutputError

__all__ = ["Staging"]

MARK = "subbyte_run"


class Staging:
    """The growing output of one run.

    out       the folder to be made
    journal   everything that decides the output; a run may go on only with the same journal
    stem      first part of the shards' names, shards how many there will be
    """

    def __init__(self, out: Path, journal: Mapping[str, Any], stem: str, shards: int) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".partial")
        self.model = self.folder / "model"
        self.stem = stem
        self.shards = shards
        self.journal = dict(journal)
        text = json.dumps(self.journal, sort_keys=True)
        self.mark = hashlib.sha256(text.encode()).hexdigest()
        self._weight_map: dict[str, str] = {}
        self._bytes = 0

    def finished(self) -> bool:
        """Whether OUT already holds the whole result of this very run."""
        if not (self.out / f"{self.stem}.safetensors.index.json").is_file():
            return False
        try:
            return all(_metadata(shard).get(MARK) == self.mark for shard in Source.open(self.out).shards())
        except CheckpointError:
            return False

    def check(self, resume: bool) -> None:
        """Raises OutputError when OUT or OUT.partial stand in the way. Writes nothing."""
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            hint = "choose another folder, or empty it"
            raise OutputError(str(self.out), "a file or a folder that is not empty", "a new or empty folder", hint)
        if not self.folder.exists():
            return
        if not resume:
            hint = "go on with resume (--resume), or delete that folder"
            raise OutputError(str(self.folder), "an unfinished run", "nothing", hint)
        path = self.folder / "journal.json"
        if not path.exists():
            return  # killed before the journal stood: nothing is finished
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(
                str(path), f"unreadable: {error}", "a journal", "delete the folder and start anew"
            ) from error
        keys = found.keys() | self.journal.keys() if isinstance(found, dict) else {"journal"}
        changed = sorted(key for key in keys if not isinstance(found, dict) or found.get(key) != self.journal.get(key))
        if changed:
            raise OutputError(
                str(self.folder),
                f"an unfinished run with another {', '.join(changed)}",
                "the same settings as when it began",
                "repeat the first command with --resume, or delete that folder",
            )

    def begin(self, config: Mapping[str, Any]) -> list[int]:
        """Makes the folders, or finds them; the numbers of the shards that are finished."""
        try:
            self.model.mkdir(parents=True, exist_ok=True)
            for stray in [*self.folder.glob(".*.tmp"), *self.model.glob(".*.tmp")]:
                stray.unlink()
        except OSError as error:
            hint = "create the folder above it" if error.errno == errno.ENOENT else "choose a folder you may write to"
            raise OutputError(
                str(self.folder), error.strerror or str(error), "a folder that can be made", hint
            ) from error
        write_json(self.folder / "journal.json", self.journal)
        self.configure(config)
        index = self.model / f"{self.stem}.safetensors.index.json"
        if not index.exists():
            return []
        self._weight_map = json.loads(index.read_text("utf-8"))["weight_map"]
        source = Source.open(self.model)
        self._bytes = sum(source.nbytes(name) for name in source.names())
        names = {self.shard(i): i for i in range(self.shards)}
        return sorted({names[file] for file in self._weight_map.values()})

    def configure(self, config: Mapping[str, Any]) -> None:
        """Writes, or rewrites, config.json."""
        write_json(self.model / "config.json", config)

    def shard(self, i: int) -> str:
        """The file name of shard i, as transformers names shards."""
        return f"{self.stem}-{i + 1:05d}-of-{self.shards:05d}.safetensors"

    def write(self, i: int, tensors: Mapping[str, object], report: Mapping[str, Any]) -> None:
        """Shard i, with what is to be said about it in its header, and the index that makes it count."""
        name = self.shard(i)
        write_shard(self.model / name, tensors, {MARK: self.mark, "subbyte_report": json.dumps(report)})
        self._weight_map.update(dict.fromkeys(tensors, name))
        self._bytes += sum(Raw.of(tensor).data.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": self._bytes}, "weight_map": dict(sorted(self._weight_map.items()))}
        write_json(self.model / f"{self.stem}.safetensors.index.json", index)

    def again(self) -> Staging:
        """The same output from its first shard on, in `tuned`; `publish` then publishes that."""
        second = Staging(self.out, self.journal, self.stem, self.shards)
        second.model = self.folder / "tuned"
        shutil.rmtree(second.model, ignore_errors=True)
        return second

    def any_finished(self) -> bool:
        """Whether a restart would find anything to go on from."""
        return bool(self._weight_map)

    def report(self, i: int, published: bool = False) -> dict[str, Any]:
        """What `write` was given for a finished shard, of the growing folder or of OUT."""
        folder = self.out if published else self.model
        found: dict[str, Any] = json.loads(_metadata(folder / self.shard(i)).get("subbyte_report", "{}"))
        return found

    def copy(self, path: Path) -> None:
        """A small file of the source, as it is."""
        target = self.model / path.name
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            hint = "free some space, then go on with --resume"
            raise OutputError(str(target), error.strerror or str(error), "a file that can be written", hint) from error

    def publish(self) -> None:
        """Gives the finished folder its name; what is left of OUT.partial goes."""
        try:
            if self.out.exists():
                self.out.rmdir()  # empty: checked before
            self.model.rename(self.out)
            _sync(self.out.parent)
        except OSError as error:
            hint = f"the finished model is in {self.model}"
            raise OutputError(str(self.out), error.strerror or str(error), "a folder that can be made", hint) from error
        self.discard()

    def discard(self) -> None:
        """Removes OUT.partial."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        found: dict[str, str] = file.metadata() or {}
    return found


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
