"""Source: the tensors of a model folder, one at a time, from files that nobody needs to trust.

Every file is opened once through the safetensors library, which checks the header against the file (sizes, offsets,
dtypes, no gaps, no overlaps); tensors are then read from their place in the file straight into fresh memory. Files are
not mapped: mapped pages count as memory of the process, and a file that shrinks under a mapping kills it.
"""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from subbyte.checkpoint.raw import HELD_AS, Raw
from subbyte.errors import CheckpointError

if TYPE_CHECKING:
    import torch

__all__ = ["STEMS", "Source"]

# `<stem>.safetensors`, or `<stem>.safetensors.index.json` and the shards it names: transformers' names, then our own
STEMS = ("model", "subbyte")
CONFIG_LIMIT, INDEX_LIMIT, HEADER_LIMIT = 16 << 20, 256 << 20, 100_000_000
MAX_DIMENSIONS, MAX_ELEMENTS = 16, 1 << 62


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor lies."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int


class Source:
    """A folder of safetensors with its config.json, or one .safetensors file; see `open`."""

    def __init__(self, path: Path, config: dict[str, Any], places: dict[str, Place]) -> None:
        self.path = path
        self.config = config
        self._places = places

    @classmethod
    def open(cls, path: str | Path) -> Source:
        """Reads config, index and headers, and checks them; no tensor is read yet.

        path   a folder with config.json and either <stem>.safetensors or <stem>.safetensors.index.json with its shards,
               stem one of `STEMS`; or a .safetensors file, whose config is the config.json beside it or else empty
        Raises CheckpointError naming the file: missing, truncated, a header that lies, an index that points elsewhere,
        a config without architectures, weights as pickles only.
        """
        path = Path(path)
        if path.is_file():
            return cls._open_file(path)
        if not path.is_dir():
            hint = "check the path"
            if not path.is_absolute() and len(path.parts) == 2:
                hint = f"download it first: hf download {path} --local-dir DIR"
            raise CheckpointError(str(path), "nothing there", "a model folder or a .safetensors file", hint)
        config = _read_config(path / "config.json")
        for stem in STEMS:
            index, single = path / f"{stem}.safetensors.index.json", path / f"{stem}.safetensors"
            if index.is_file():
                return cls(path, config, _read_index(index))
            if single.is_file():
                return cls(path, config, _read_header(single))
        raise CheckpointError(
            str(path), _what_is_there(path), "model.safetensors or model.safetensors.index.json", _what_to_do(path)
        )

    @classmethod
    def _open_file(cls, path: Path) -> Source:
        if path.suffix != ".safetensors":
            raise CheckpointError(
                str(path), f"a file {path.suffix or path.name}", "a .safetensors file or a model folder"
            )
        beside = path.parent / "config.json"
        return cls(path, _read_config(beside) if beside.is_file() else {}, _read_header(path))

    def names(self) -> list[str]:
        """The names of all tensors, sorted."""
        return sorted(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def dtype(self, name: str) -> str:
        """safetensors' name of the stored dtype: "BF16", "I32", ..."""
        return self._place(name).dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self._place(name).shape

    def nbytes(self, name: str) -> int:
        """How many bytes a tensor takes in the file."""
        return self._place(name).nbytes

    def shards(self) -> list[Path]:
        """The files that hold the tensors, sorted."""
        return sorted({place.file for place in self._places.values()})

    def raw(self, name: str) -> Raw:
        """Reads one tensor into fresh memory, with its dtype; CheckpointError if it is not there or cannot be read."""
        place = self._place(name)
        held = HELD_AS.get(place.dtype)
        if held is None:
            raise CheckpointError(f"{place.file}: {name}", place.dtype, f"one of {', '.join(HELD_AS)}")
        count = place.nbytes // held.itemsize
        try:
            data = np.fromfile(place.file, held, count, offset=place.begin)
        except OSError as error:
            raise _broken(place.file, error.strerror or str(error)) from error
        if data.size != count:
            raise _broken(place.file, f"{data.nbytes} of the {place.nbytes} bytes of {name}")
        return Raw(place.dtype, data.reshape(place.shape))

    def array(self, name: str) -> npt.NDArray[Any]:
        """Reads one tensor as NumPy; bf16 comes as u16 and 8-bit floats as u8, `dtype(name)` says what they are."""
        return self.raw(name).data

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """Reads one float tensor as f32."""
        return self.raw(name).floats()

    def read(self, name: str) -> torch.Tensor:
        """Reads one tensor as torch, in its stored dtype, into memory that is the caller's."""
        return self.raw(name).torch()

    def _place(self, name: str) -> Place:
        place = self._places.get(name)
        if place is None:
            near = difflib.get_close_matches(name, self._places, n=1)
            hint = f"the nearest is {near[0]}" if near else f"it holds {len(self._places)} tensors"
            raise CheckpointError(str(self.path), f"no tensor {name}", "that tensor", hint)
        return place


def _what_is_there(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return f"only {listed}" if names else "an empty folder"


def _what_to_do(folder: Path) -> str:
    """The hint for a folder without weights that we read."""
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        return (
            "pickles run code when opened and are not read: convert them where you trust them, with "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(out)"
        )
    if any(folder.glob("*.gguf")):
        return "GGUF is not read: start from the safetensors of the same model"
    if any(folder.glob("*.safetensors")):
        return "the index of these shards is missing: fetch model.safetensors.index.json too"
    return "is the download complete?"


def _read_json(path: Path, limit: int) -> Any:
    """A JSON file of at most `limit` bytes; CheckpointError for anything that is not one."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise CheckpointError(str(path), f"{size} bytes", f"at most {limit}")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(str(path), error.strerror or str(error), "a file", "is the download complete?") from error
    except RecursionError as error:
        raise CheckpointError(str(path), "JSON nested too deeply", "a few levels") from error
    except ValueError as error:  # malformed JSON, bytes that are no UTF-8, numbers of thousands of digits
        raise CheckpointError(str(path), f"no JSON ({error})", "JSON", "is the download complete?") from error


def _read_config(path: Path) -> dict[str, Any]:
    config = _read_json(path, CONFIG_LIMIT)
    if not isinstance(config, dict):
        raise CheckpointError(str(path), f"a JSON {type(config).__name__}", "a JSON object")
    architectures = config.get("architectures")
    if not (isinstance(architectures, list) and architectures and all(isinstance(name, str) for name in architectures)):
        hint = 'add for example "architectures": ["LlamaForCausalLM"]'
        raise CheckpointError(str(path), f"architectures {architectures!r}", "a list of class names", hint)
    return config


def _read_index(path: Path) -> dict[str, Place]:
    """The tensors that an index promises, each found in the shard that it names."""
    index = _read_json(path, INDEX_LIMIT)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(str(path), "no weight_map", "a weight_map from tensor names to file names")
    headers = {file: _read_header(_shard(path, file)) for file in sorted(set(weight_map.values()))}
    places: dict[str, Place] = {}
    for name, file in weight_map.items():
        if name not in headers[file]:
            hint = "index and shards are of different downloads: fetch the folder again"
            raise CheckpointError(str(path.parent / file), f"no tensor {name}", "what the index promises", hint)
        places[name] = headers[file][name]
    return places


def _shard(index: Path, file: str) -> Path:
    """The path of a shard, which must be a file of the folder itself, and no link that leads out of it.

    The links of the Hugging Face cache are the exception: snapshots/<revision>/<name> leads to ../../blobs/<hash>.
    """
    folder = index.parent
    if not file.endswith(".safetensors") or "/" in file or "\\" in file or "\0" in file:
        hint = "an index may name the files beside it and nothing else"
        raise CheckpointError(str(index), f"the shard {file!r}", "a plain file name that ends in .safetensors", hint)
    path = folder / file
    try:
        target, home = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: Python 3.11's word for links in a circle
        raise CheckpointError(str(path), str(error), "a file") from error
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    if target.parent not in homes:
        raise CheckpointError(str(path), f"a link to {target}", f"a file in {folder}", "copy the file into the folder")
    return path


def _read_header(path: Path) -> dict[str, Place]:
    """The tensors of one safetensors file, after the library has checked header and size against each other."""
    from safetensors import safe_open

    if not path.is_file():
        raise CheckpointError(str(path), "no such file", "a shard that the index names", "is the download complete?")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= min(HEADER_LIMIT, max(size - 8, 0)):
                raise _broken(path, f"a header of {length} bytes in a file of {size}")
            with safe_open(path, framework="np"):
                header = json.loads(file.read(length), object_pairs_hook=_without_repeats)
    except CheckpointError:
        raise
    except RecursionError as error:
        raise _broken(path, "a header nested too deeply") from error
    except Exception as error:  # the library has one exception for everything, and no common base with OSError
        raise _broken(path, str(error)) from error
    header.pop("__metadata__", None)
    return {name: _place(path, name, entry, 8 + length, size) for name, entry in header.items()}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object that says nothing twice: two readers could otherwise see two different files."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name that comes twice in the header")
    return found


def _place(path: Path, name: str, entry: Any, start: int, size: int) -> Place:
    """One entry of a header, checked once more against the file: reading relies on it."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sane = all(type(number) is int and number >= 0 for number in (*shape, begin, end)) and isinstance(dtype, str)
    except (TypeError, KeyError, ValueError):
        sane = False
    if not sane or not begin <= end <= size - start:
        raise _broken(path, f"the entry {str(entry)[:120]} for {name}")
    if len(shape) > MAX_DIMENSIONS or math.prod(side or 1 for side in shape) > MAX_ELEMENTS:
        raise _broken(path, f"the shape {str(list(shape))[:120]} of {name}")
    held = HELD_AS.get(dtype)
    if held is not None and math.prod(shape) * held.itemsize != end - begin:
        raise _broken(path, f"{end - begin} bytes for {name}, {dtype} {list(shape)}")
    return Place(path, dtype, shape, start + begin, end - begin)


def _broken(path: Path, given: str) -> CheckpointError:
    hint = "the file is truncated or damaged: fetch it again"
    return CheckpointError(str(path), given, "a whole safetensors file", hint)
