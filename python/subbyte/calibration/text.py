"""Text and token files -> windows of tokens, for calibration and for evaluation.

The rule for both: tokenise the whole text without special tokens, cut it into windows, put the model's bos token in the
first place of each. Without a file, the English text that every CPython carries is used: calibration gets one half of
it, evaluation the other.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from subbyte.errors import CalibrationError, DependencyError, RangeError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Bos", "pydoc_text", "tokens", "windows"]

Bos = int | None | Literal["config"]
"""The token at the start of each window: its id, None to leave the text's own, "config" for the model's: bos_token_id,
else what its tokenizer puts first (the [CLS] of an encoder)."""


def tokens(
    path: str | Path | None,
    tokenizer_dir: str | Path,
    samples: int = 128,
    seq_len: int = 256,
    seed: int = 0,
    bos: Bos = "config",
) -> torch.Tensor:
    """Calibration: `samples` windows drawn at random without repetition, i64 [samples, seq_len].

    path            .txt (or any other text), .jsonl (key "text"), .npy or .safetensors with integer tokens; None: the
                    first half of CPython's own text
    tokenizer_dir   folder with tokenizer.json and config.json (not needed for token files with a given `bos`)
    A text with fewer windows than `samples` gives all it has. Raises CalibrationError (missing, empty, unreadable,
    shorter than one window), RangeError, DependencyError (no tokenizers package).
    """
    if samples < 1:
        raise RangeError("samples", samples, "at least 1")
    found = _windows(path, tokenizer_dir, seq_len, bos, half=1)
    chosen = np.random.default_rng(seed).permutation(len(found))[:samples]
    return found[torch.from_numpy(chosen)]


def windows(
    path: str | Path | None,
    tokenizer_dir: str | Path,
    seq_len: int = 256,
    limit: int | None = None,
    bos: Bos = "config",
) -> torch.Tensor:
    """Evaluation: the windows in the order of the text, the first `limit` of them (None: all), i64 [n, seq_len].

    As `tokens`, but without a path it takes the second half of CPython's text, which calibration never sees.
    """
    if limit is not None and limit < 1:
        raise RangeError("limit", limit, "at least 1, or None for all windows")
    return _windows(path, tokenizer_dir, seq_len, bos, half=2)[:limit]


def _windows(
    path: str | Path | None, tokenizer_dir: str | Path, seq_len: int, bos: Bos, half: Literal[1, 2]
) -> torch.Tensor:
    if seq_len < 2:
        raise RangeError("seq_len", seq_len, "at least 2")
    folder = Path(tokenizer_dir)
    what = "text of CPython" if path is None else str(path)
    stream = _tokenize([pydoc_text(half)], folder) if path is None else _read(Path(path), folder, seq_len)
    count = len(stream) // seq_len
    if count == 0:
        raise CalibrationError(
            what,
            f"{len(stream)} tokens",
            f"at least one window of {seq_len}",
            "give a longer text, or a smaller seq_len",
        )
    cut = torch.from_numpy(stream[: count * seq_len].reshape(count, seq_len).copy())
    first = _bos(folder) if bos == "config" else bos
    if first is not None:
        cut[:, 0] = first
    return cut


def _bos(folder: Path) -> int | None:
    """bos_token_id of config.json, else the special token that the tokenizer puts first, or None if there is none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise CalibrationError(str(folder / "config.json"), problem, "the model's configuration") from problem
    value = config.get("bos_token_id")
    if value is None and isinstance(config.get("text_config"), dict):
        value = config["text_config"].get("bos_token_id")
    value = value[0] if isinstance(value, list) and value else value
    if isinstance(value, int):
        return value
    alone = _tokenizer(folder).encode("").ids if (folder / "tokenizer.json").is_file() else []
    return alone[0] if alone else None


def _read(path: Path, folder: Path, seq_len: int) -> NDArray[np.int64]:
    """The tokens of a file, end to end. Rows of a token file are cut to whole windows, so that none spans two rows."""
    if not path.is_file():
        raise CalibrationError(str(path), "no such file", "a text, JSONL, .npy or .safetensors file")
    kind = path.suffix.lower()
    if kind in (".npy", ".safetensors"):
        array = _array(path)
        if array.ndim == 2:
            if array.shape[1] < seq_len:
                raise CalibrationError(
                    str(path), f"rows of {array.shape[1]} tokens", f"at least {seq_len}", "give a smaller seq_len"
                )
            array = array[:, : array.shape[1] // seq_len * seq_len]
        return np.ascontiguousarray(array, np.int64).reshape(-1)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise CalibrationError(str(path), problem, "readable UTF-8 text") from problem
    documents = _documents(text, path) if kind in (".jsonl", ".json", ".ndjson") else [text]
    if not any(document.strip() for document in documents):
        raise CalibrationError(str(path), "no text", "at least one window of tokens")
    return _tokenize(documents, folder)


def _documents(text: str, path: Path) -> list[str]:
    """The "text" of each line of a JSONL file."""
    documents = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as problem:
            raise CalibrationError(f"{path}, line {number}", problem, "one JSON object a line") from problem
        document = entry.get("text") if isinstance(entry, dict) else entry
        if not isinstance(document, str):
            raise CalibrationError(f"{path}, line {number}", type(document).__name__, 'a string under the key "text"')
        documents.append(document)
    return documents


def _array(path: Path) -> NDArray[Any]:
    """The integer array of a token file: [n] or [rows, n]."""
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, allow_pickle=False)
        else:
            from safetensors.numpy import load_file

            arrays = load_file(path)
            if len(arrays) != 1 and "tokens" not in arrays and "input_ids" not in arrays:
                raise CalibrationError(
                    str(path), f"tensors {', '.join(arrays)}", 'one tensor, or "tokens", or "input_ids"'
                )
            array = arrays.get("tokens", arrays.get("input_ids", next(iter(arrays.values()), None)))
    except CalibrationError:
        raise
    except Exception as problem:  # safetensors raises an exception class of its own, NumPy several
        raise CalibrationError(str(path), problem, "a readable token file") from problem
    if array is None or array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        raise CalibrationError(
            str(path),
            "nothing" if array is None else f"{array.dtype} {list(array.shape)}",
            "integers, [n] or [rows, n]",
        )
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        raise CalibrationError(str(path), "tokens outside int64's positive range", "token ids")
    return np.asarray(array)


def _tokenize(documents: list[str], folder: Path) -> NDArray[np.int64]:
    """All tokens of all documents, end to end, without special tokens."""
    encoded = _tokenizer(folder).encode_batch(documents, add_special_tokens=False)
    return np.concatenate([np.asarray(one.ids, np.int64) for one in encoded]) if encoded else np.empty(0, np.int64)


def _tokenizer(folder: Path) -> Tokenizer:
    """The model's tokenizer, which neither cuts nor pads."""
    try:
        from tokenizers import Tokenizer
    except ImportError as missing:
        raise DependencyError("package", "no tokenizers", "tokenizers", "pip install 'subbyte[hf]'") from missing
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CalibrationError(
            str(path), "no such file", "the model's tokenizer", "give calibration as a token file (.npy, .safetensors)"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as problem:  # tokenizers raises a bare Exception
        raise CalibrationError(str(path), problem, "a tokenizer that tokenizers can read") from problem
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def pydoc_text(half: Literal[1, 2]) -> str:
    """One of two disjoint halves (about 180 kB each) of pydoc_data.topics, the English that every CPython carries.

    Whole topics belong to a half by a checksum of their name, so that a release that adds, drops or grows a topic moves
    no other. A paragraph that several topics repeat stays in the first of them only: no paragraph is in both halves.
    Raises CalibrationError where the interpreter was packaged without it.
    """
    if half not in (1, 2):
        raise RangeError("half", half, "1 or 2")
    try:
        from pydoc_data.topics import topics
    except ImportError as missing:
        raise CalibrationError(
            "pydoc_data.topics", "not in this Python", "the text that CPython carries", "give a text file"
        ) from missing
    seen: set[str] = set()
    chosen = []
    for name in sorted(topics):
        # Bit 22 happens to part the topics of CPython 3.11 evenly.
        mine = 1 + (zlib.crc32(name.encode()) >> 22 & 1) == half
        paragraphs = []
        for paragraph in topics[name].split("\n\n"):
            key = " ".join(paragraph.split())
            if key not in seen:
                seen.add(key)
                paragraphs.append(paragraph)
        if mine and paragraphs:
            chosen.append("\n\n".join(paragraphs))
    return "\n\n\n".join(chosen)
