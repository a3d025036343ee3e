"""Files are there whole or not at all, and what is written is what the safetensors library reads."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from subbyte.checkpoint import Raw, Source, files, write_json, write_shard
from subbyte.errors import DtypeError, OutputError


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    arrays = {
        "z.i64": np.arange(3),
        "y.f32": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
        "x.i8": np.array([-128, 127], np.int8),
        "w.bool": np.array([True, False, True]),
        "v.empty": np.zeros((0, 4), np.float16),
        "u.scalar": np.array(2.5),
        "t.strided": np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2],
        "ключ": np.zeros(1, np.uint8),
    }
    write_shard(tmp_path / "x.safetensors", arrays, {"made by": "a test"})
    with safe_open(tmp_path / "x.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt", "made by": "a test"}
        assert set(file.keys()) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array, strict=True)


def test_torch_tensors_keep_their_bits(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).reshape(256, 256)
    tensors = {
        "bf16": bits.view(torch.bfloat16),  # every pattern, NaN payloads too
        "f16": bits.view(torch.float16),
        "transposed": bits.view(torch.bfloat16).T,
        "e4m3": torch.arange(256, dtype=torch.int32).to(torch.uint8).view(torch.float8_e4m3fn),
        "i32": torch.arange(5, dtype=torch.int32),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    write_shard(tmp_path / "x.safetensors", tensors)
    source = Source.open(tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        for name, tensor in tensors.items():
            for read in (file.get_tensor(name), source.read(name)):
                assert read.dtype == tensor.dtype
                same = tensor.detach().contiguous()
                assert torch.equal(read.reshape(-1).view(torch.uint8), same.reshape(-1).view(torch.uint8))


def test_the_same_tensors_give_the_same_bytes_and_lie_aligned(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {
        "a": np.zeros(3, np.uint8),
        "b": Raw("BF16", np.zeros(3, np.uint16)),
        "c": np.zeros(3, np.float32),
        "d": np.zeros(3, np.int64),
    }
    write_shard(tmp_path / "x.safetensors", tensors)
    write_shard(tmp_path / "y.safetensors", dict(reversed(tensors.items())))
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()
    source = Source.open(tmp_path / "x.safetensors")
    for name in source.names():
        place = source._place(name)
        assert place.begin % Raw.of(tensors[name]).data.itemsize == 0


def test_no_tensors_make_a_file_too(tmp_path: Path) -> None:
    write_shard(tmp_path / "x.safetensors", {})
    assert Source.open(tmp_path / "x.safetensors").names() == []


@pytest.mark.parametrize("tensor", [np.zeros(2, np.complex64), [1.0], None, np.array(["a"])])
def test_what_is_no_tensor_is_refused_before_anything_is_written(tmp_path: Path, tensor: object) -> None:
    with pytest.raises(DtypeError):
        write_shard(tmp_path / "x.safetensors", {"a": tensor})
    assert list(tmp_path.iterdir()) == []


def test_rounding_to_the_dtypes_of_scales() -> None:
    values = np.array([1.0, 1.001, -3.5, 1e-3, 65504.0], np.float32)
    assert Raw.from_floats(values, "F32").data is values
    half = Raw.from_floats(values, "F16")
    np.testing.assert_array_equal(half.data, values.astype(np.float16), strict=True)
    brain = Raw.from_floats(values, "BF16")
    nearest = (values.view(np.uint32) + 0x7FFF + ((values.view(np.uint32) >> 16) & 1)) >> 16
    np.testing.assert_array_equal(brain.data, nearest.astype(np.uint16), strict=True)
    np.testing.assert_array_equal(brain.floats(), (nearest << 16).astype(np.uint32).view(np.float32))


def test_an_old_file_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    write_json(path, {"ä": [2]})
    assert path.read_text(encoding="utf-8") == '{\n  "ä": [\n    2\n  ]\n}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("trouble", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_the_folder_as_it_was(tmp_path: Path, trouble: type[BaseException]) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def write(file: Any) -> None:
        file.write(b"half of the new")
        raise trouble

    with pytest.raises(trouble):
        files.write_whole(path, write)
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OutputError, match=r"No space left on device.*free some space"):
        write_shard(tmp_path / "x.safetensors", {"a": np.zeros(4)})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="create the folder first"):
        write_json(tmp_path / "absent" / "x.json", {})


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(OutputError):
        write_json(tmp_path / "x.json", {})
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("this user cannot mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    write_shard(small_disk / "first.safetensors", {"a": np.zeros(1000, np.uint8)})
    with pytest.raises(OutputError, match=r"second\.safetensors.*No space left on device.*free some space"):
        write_shard(small_disk / "second.safetensors", {"a": np.zeros(1 << 20, np.uint8)})
    assert [file.name for file in small_disk.iterdir()] == ["first.safetensors"]
