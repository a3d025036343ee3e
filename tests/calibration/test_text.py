from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from subbyte.calibration import pydoc_text, tokens, windows
from subbyte.errors import CalibrationError, RangeError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with one token a byte; bos is 0, which its template would put in front of every text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    path = tmp_path_factory.mktemp("tokenizer")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={"<s>": 0, **{c: n + 1 for n, c in enumerate(letters)}}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $0", special_tokens=[("<s>", 0)])
    tokenizer.enable_truncation(8)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "config.json").write_text(json.dumps({"bos_token_id": 0}))
    return path


def ids(folder: Path, text: str) -> list[int]:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    return [vocabulary["Ġ" if c == " " else c] for c in text]


TEXT = "".join(chr(ord("a") + n * n % 26) for n in range(103))


def test_windows_are_the_text_in_order(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    expected = np.array(ids(folder, TEXT)[:100]).reshape(10, 10)
    got = windows(path, folder, 10, bos=None)
    assert got.dtype == torch.int64
    np.testing.assert_array_equal(got, expected)
    expected[:, 0] = 0
    np.testing.assert_array_equal(windows(path, folder, 10), expected)
    np.testing.assert_array_equal(windows(path, folder, 10, limit=3), expected[:3])
    assert (windows(path, folder, 10, bos=7)[:, 0] == 7).all()


def test_calibration_draws_windows_by_the_seed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    everything = {tuple(row) for row in windows(path, folder, 10).tolist()}
    drawn = tokens(path, folder, samples=6, seq_len=10, seed=3)
    assert drawn.shape == (6, 10)
    assert len({tuple(row) for row in drawn.tolist()} & everything) == 6, "none twice"
    assert torch.equal(drawn, tokens(path, folder, samples=6, seq_len=10, seed=3))
    assert not torch.equal(drawn, tokens(path, folder, samples=6, seq_len=10, seed=4))
    assert tokens(path, folder, samples=99, seq_len=10).shape == (10, 10)


def test_json_lines(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text(json.dumps({"text": TEXT[:30], "id": 1}) + "\n\n" + json.dumps({"text": TEXT[30:]}) + "\n")
    np.testing.assert_array_equal(windows(path, folder, 10, bos=None).reshape(-1), ids(folder, TEXT)[:100])


@pytest.mark.parametrize(
    ("line", "message"), [("{", "line 2"), ('{"txt": "a"}', '"text"'), ("[1]", '"text"'), ('{"text": 3}', '"text"')]
)
def test_broken_json_lines(folder: Path, tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(CalibrationError, match=message):
        windows(path, folder, 4)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16])
@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_token_files(folder: Path, tmp_path: Path, suffix: str, dtype: Any) -> None:
    flat = np.arange(1, 40, dtype=dtype)
    rows = np.arange(1, 37, dtype=dtype).reshape(3, 12)
    for array, expected in ((flat, flat[:35].reshape(7, 5)), (rows, rows[:, :10].reshape(6, 5))):
        path = tmp_path / f"tokens{suffix}"
        if suffix == ".npy":
            np.save(path, array)
        else:
            save_file({"input_ids": array, "attention_mask": np.ones_like(array)}, path)
        np.testing.assert_array_equal(windows(path, folder, 5, bos=None), expected)
        np.testing.assert_array_equal(windows(path, tmp_path / "nowhere", 5, bos=None), expected)


@pytest.mark.parametrize(
    "array",
    [np.zeros(9), np.zeros((2, 2, 2), np.int64), np.array([-1] * 9), np.zeros((3, 4), np.int64), np.zeros(3, np.int64)],
)
def test_token_files_that_hold_something_else(folder: Path, tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "tokens.npy", array)
    with pytest.raises(CalibrationError, match=r"tokens\.npy"):
        windows(tmp_path / "tokens.npy", folder, 5)


def test_files_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    for name in ("broken.npy", "broken.safetensors", "broken.txt"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00nothing")
    (tmp_path / "many.safetensors").write_bytes(b"")
    save_file({"a": np.zeros(9, np.int64), "b": np.zeros(9, np.int64)}, tmp_path / "many.safetensors")
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name in ("missing.txt", "broken.npy", "broken.safetensors", "broken.txt", "many.safetensors", "pickle.npy"):
        with pytest.raises(CalibrationError, match=name):
            windows(tmp_path / name, folder, 5)


@pytest.mark.parametrize("text", ["", " \n", "short"])
def test_texts_that_are_too_short(folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "text.txt").write_text(text)
    with pytest.raises(CalibrationError, match=r"text\.txt"):
        tokens(tmp_path / "text.txt", folder, 1, 10)


def test_options_out_of_range(folder: Path) -> None:
    for call in (
        lambda: tokens(None, folder, samples=0),
        lambda: tokens(None, folder, seq_len=1),
        lambda: windows(None, folder, limit=0),
        lambda: pydoc_text(3),  # type: ignore[arg-type]
    ):
        with pytest.raises(RangeError):
            call()


def test_tokenizers_and_configs_that_are_missing_or_broken(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    with pytest.raises(CalibrationError, match=r"tokenizer\.json"):
        windows(tmp_path / "text.txt", tmp_path, 5)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CalibrationError, match=r"tokenizer\.json"):
        windows(tmp_path / "text.txt", tmp_path, 5)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(CalibrationError, match=r"config\.json"):
        windows(tmp_path / "text.txt", tmp_path, 5)


@pytest.mark.parametrize(
    ("config", "first"),
    [({}, None), ({"bos_token_id": None}, None), ({"bos_token_id": 5}, 5), ({"bos_token_id": [4, 5]}, 4),
     ({"text_config": {"bos_token_id": 6}}, 6)],
)  # fmt: skip
def test_bos_of_the_config(folder: Path, tmp_path: Path, config: dict[str, Any], first: int | None) -> None:
    np.save(tmp_path / "tokens.npy", np.arange(40, 60))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert windows(tmp_path / "tokens.npy", tmp_path, 10)[:, 0].tolist() == ([40, 50] if first is None else [first] * 2)


def test_the_halves_of_cpythons_text_share_no_paragraph() -> None:
    first, second = pydoc_text(1), pydoc_text(2)
    assert min(len(first), len(second)) > 100_000

    def paragraphs(text: str) -> set[str]:
        return {" ".join(p.split()) for p in text.split("\n\n")} - {""}

    assert not paragraphs(first) & paragraphs(second)
    assert first == pydoc_text(1)


def test_the_shared_model_reads_both_halves(shared: Callable[[str], Path]) -> None:
    folder = shared("models/llama")
    evaluation, calibration = windows(None, folder), tokens(None, folder)
    assert len(evaluation) >= 200
    assert calibration.shape == (128, 256)
    assert (evaluation[:, 0] == 0).all()
