"""Source against good folders, and against every kind of bad one: the error names the file and says what to do."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subbyte.checkpoint import Raw, Source, write_json, write_shard
from subbyte.errors import CheckpointError

CONFIG = {"architectures": ["LlamaForCausalLM"]}


def tensors() -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return {
        "a.weight": Raw("BF16", draw.integers(0, 1 << 15, (4, 6), np.uint16)),
        "a.bias": draw.standard_normal(4, np.float32),
        "b.codes": draw.integers(-9, 9, (3, 2), np.int32),
        "c": np.zeros((0, 5), np.float16),
        "d": np.array(7, np.int64),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in one file."""
    write_json(tmp_path / "config.json", CONFIG)
    write_shard(tmp_path / "model.safetensors", tensors())
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The same model in two shards with an index."""
    tmp_path = tmp_path / "sharded"
    tmp_path.mkdir()
    parts = tensors()
    first = {name: parts.pop(name) for name in ("a.weight", "d")}
    write_json(tmp_path / "config.json", CONFIG)
    write_shard(tmp_path / "model-00001-of-00002.safetensors", first)
    write_shard(tmp_path / "model-00002-of-00002.safetensors", parts)
    weight_map = dict.fromkeys(first, "model-00001-of-00002.safetensors")
    weight_map |= dict.fromkeys(parts, "model-00002-of-00002.safetensors")
    write_json(tmp_path / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    return tmp_path


def check_contents(source: Source) -> None:
    expected = {name: Raw.of(tensor) for name, tensor in tensors().items()}
    assert source.names() == sorted(expected)
    for name, raw in expected.items():
        assert source.dtype(name) == raw.dtype
        assert source.shape(name) == raw.data.shape
        assert source.nbytes(name) == raw.data.nbytes
        np.testing.assert_array_equal(source.array(name), raw.data, strict=True)


def test_reads_one_file_and_shards_alike(folder: Path, sharded: Path) -> None:
    check_contents(Source.open(folder))
    source = Source.open(sharded)
    check_contents(source)
    assert source.config == CONFIG
    assert [path.name[:11] for path in source.shards()] == ["model-00001", "model-00002"]
    assert "a.weight" in source
    assert "z" not in source


def test_reads_a_file_alone(folder: Path) -> None:
    check_contents(Source.open(folder / "model.safetensors"))
    (folder / "config.json").unlink()
    source = Source.open(folder / "model.safetensors")
    check_contents(source)
    assert source.config == {}


def test_finds_our_own_file_names(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "subbyte.safetensors")
    check_contents(Source.open(folder))


def test_bf16_and_its_floats(folder: Path) -> None:
    source = Source.open(folder)
    bits = source.array("a.weight")
    assert bits.dtype == np.uint16
    meant = (bits.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(source.floats("a.weight"), meant, strict=True)
    with pytest.raises(CheckpointError, match="a float dtype"):
        source.floats("b.codes")


def test_torch_tensors_keep_their_dtype(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    source = Source.open(folder)
    tensor = source.read("a.weight")
    assert tensor.dtype == torch.bfloat16
    np.testing.assert_array_equal(tensor.view(torch.uint16).numpy(), source.array("a.weight"))
    tensor += 1  # the memory is ours: the file stays
    np.testing.assert_array_equal(source.array("a.weight"), tensors()["a.weight"].data)
    assert source.read("b.codes").dtype == torch.int32
    assert source.read("c").shape == (0, 5)
    assert source.read("d").item() == 7


def test_agrees_with_the_library(shared: Callable[[str], Path]) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    path = shared("models/pydoc-mini")
    source = Source.open(path)
    expected = load_file(path / "model.safetensors")
    assert source.names() == sorted(expected)
    for name in source.names():
        assert torch.equal(source.read(name), expected[name])


def test_a_missing_tensor_names_the_nearest(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tensor a\.wieght.*the nearest is a\.weight"):
        Source.open(folder).array("a.wieght")


def refused(path: Path, *says: str) -> None:
    """Opening fails with CheckpointError, and the message has all of `says`."""
    with pytest.raises(CheckpointError) as error:
        Source.open(path)
    for text in says:
        assert text in str(error.value)


def test_nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "absent", "absent", "nothing there")
    monkeypatch.chdir(tmp_path)
    refused(Path("meta-llama/Llama-3.2-1B"), "hf download meta-llama/Llama-3.2-1B")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    refused(tmp_path, "only config.json", "is the download complete?")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pytorch_model.bin", "save_pretrained"),
        ("consolidated.00.pth", "save_pretrained"),
        ("model-Q4_K.gguf", "GGUF"),
        ("model-00001-of-00002.safetensors", "fetch model.safetensors.index.json"),
    ],
)
def test_other_kinds_of_weights_say_what_to_do(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / name).write_bytes(b"\x80\x04")
    refused(tmp_path, name, says)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "model.gguf", ".safetensors file")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "JSON list"),
        ("\xff", "no JSON"),
        ("1" * 5000, "no JSON"),
        ("{}", "architectures None"),
        ('{"architectures": []}', "architectures []"),
        ('{"architectures": [3]}', "architectures [3]"),
        ('{"architectures": "LlamaForCausalLM"}', "a list of class names"),
    ],
)
def test_a_config_that_says_nothing(folder: Path, text: str | None, says: str) -> None:
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_bytes(text.encode("latin-1"))
    refused(folder, "config.json", says)


def header(file: Path) -> tuple[dict[str, Any], bytes]:
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(file: Path, text: str | bytes | dict[str, Any], data: bytes, length: int | None = None) -> None:
    text = json.dumps(text) if isinstance(text, dict) else text
    text = text.encode() if isinstance(text, str) else text
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


@pytest.mark.parametrize("keep", [0, 4, 8, 20, -1])
def test_a_truncated_file(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, "model.safetensors", "fetch it again")


@pytest.mark.parametrize("length", [0, 1, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_header_length_that_lies(folder: Path, length: int) -> None:
    file = folder / "model.safetensors"
    text, data = header(file)
    rewrite(file, text, data, length)
    refused(folder, "model.safetensors", "truncated or damaged")


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 1 << 40]},
        {"data_offsets": [-8, 40]},
        {"data_offsets": [48, 0]},
        {"data_offsets": [0, 47]},
        {"data_offsets": [0]},
        {"data_offsets": None},
        {"shape": [4, 7]},
        {"shape": [1 << 62, 1 << 62]},
        {"shape": [-4, -6]},
        {"shape": ["4", 6]},
        {"shape": [4.0, 6]},
        {"shape": None},
        {"dtype": "F32"},
        {"dtype": "X9"},
        {"dtype": 3},
    ],
)
def test_an_entry_that_lies(folder: Path, change: dict[str, Any]) -> None:
    file = folder / "model.safetensors"
    text, data = header(file)
    text["a.weight"] |= change
    rewrite(file, text, data)
    refused(folder, "model.safetensors", "truncated or damaged")


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"not json at all",
        b"\xff\xfe\x00\x00",
        b"[]",
        b"{}",
        b'{"x":{"dtype":"F16","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}}',
        b'{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}',
        b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}',
    ],
)
def test_a_header_that_is_none(folder: Path, text: bytes) -> None:
    rewrite(folder / "model.safetensors", text, b"123")
    refused(folder, "model.safetensors")


def test_a_shape_of_many_dimensions(folder: Path) -> None:
    entry = {"dtype": "U8", "shape": [1] * 64, "data_offsets": [0, 1]}
    rewrite(folder / "model.safetensors", {"x": entry}, b"1")
    refused(folder, "model.safetensors", "the shape [1, 1")


def test_a_file_that_shrinks_after_opening(folder: Path) -> None:
    source = Source.open(folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="fetch it again"):
        source.array("a.weight")
    file.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        source.array("a.weight")


def reindex(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    """Applies `change` to the weight_map of the index."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = change(index["weight_map"]) or index["weight_map"]
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    refused(sharded, "model-00002-of-00002.safetensors", "no such file", "is the download complete?")


def test_a_promise_that_no_shard_keeps(sharded: Path) -> None:
    reindex(sharded, lambda names: names.update(ghost="model-00001-of-00002.safetensors"))
    refused(sharded, "no tensor ghost", "fetch the folder again")


@pytest.mark.parametrize("weight_map", [[], "x", {"a": 3}, {"a": None}])
def test_an_index_without_a_map(sharded: Path, weight_map: object) -> None:
    reindex(sharded, lambda _: weight_map)
    if weight_map == []:
        (sharded / "model.safetensors.index.json").write_text("[]")
    refused(sharded, "model.safetensors.index.json", "weight_map")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "/etc/secret.safetensors",
        "sub/model.safetensors",
        "..\\secret.safetensors",
        "..",
        "",
        "model\0.safetensors",
        "config.json",
        "~/secret.safetensors",
    ],
)
def test_an_index_names_only_what_lies_beside_it(sharded: Path, name: str) -> None:
    write_shard(sharded.parent / "secret.safetensors", tensors())
    reindex(sharded, lambda names: names.update({"a.weight": name}))
    refused(sharded, "model.safetensors.index.json", "a plain file name")


def test_an_index_does_not_follow_links_out(sharded: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "model.safetensors"
    shard = sharded / "model-00001-of-00002.safetensors"
    shard.rename(outside)
    shard.symlink_to(outside)
    refused(sharded, "a link to", "copy the file into the folder")


def test_a_link_in_a_circle(sharded: Path) -> None:
    shard = sharded / "model-00001-of-00002.safetensors"
    shard.unlink()
    shard.symlink_to(shard.name)
    refused(sharded, "model-00001-of-00002.safetensors")


def test_the_links_of_the_cache_are_followed(sharded: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = tmp_path_factory.mktemp("models--a--b")
    (cache / "blobs").mkdir()
    (cache / "snapshots" / "1234").mkdir(parents=True)
    for number, file in enumerate(sorted(sharded.iterdir())):
        file.rename(cache / "blobs" / f"{number}")
        (cache / "snapshots" / "1234" / file.name).symlink_to(f"../../blobs/{number}")
    check_contents(Source.open(cache / "snapshots" / "1234"))
