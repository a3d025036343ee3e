"""inspect: sizes add up to the file, outliers are counted, errors are those of the codes, and torch stays away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.checkpoint.layers import layer, nearest

from subbyte.checkpoint import Raw, Source, formats, inspect, write_json, write_shard
from subbyte.errors import CheckpointError
from subbyte.schemes import Scheme
from subbyte.tensors import Coded, QuantizedLayer, VectorTensor

NAME = "model.layers.0.mlp.up_proj"
CONFIG = {"architectures": ["LlamaForCausalLM"]}


def test_every_byte_of_a_float_model_is_reported(shared: Callable[[str], Path]) -> None:
    folder = shared("models/llama")
    reports = inspect(folder)
    assert [report.name for report in reports] == Source.open(folder).names()
    assert all(report.scheme == "BF16" and report.bits_per_weight == 16 for report in reports)
    size = (folder / "model.safetensors").stat().st_size
    assert 0 < size - sum(report.nbytes for report in reports) < 10_000  # the header
    head = next(report for report in reports if report.name == "lm_head.weight")
    values = Source.open(folder).floats("lm_head.weight").astype(np.float64)
    assert head.peak == pytest.approx(np.abs(values).max() / np.sqrt(np.mean(values**2)), rel=1e-6)
    assert head.beyond == np.mean(np.abs(values) > 6 * values.std())
    assert all((report.peak is None) == (len(report.shape) != 2) for report in reports)


def quantized(folder: Path, form: formats.Format, one: QuantizedLayer) -> None:
    """A folder with one quantized layer and a norm."""
    tensors: dict[str, object] = {**form.tensors(NAME, one, "bfloat16"), "model.norm.weight": np.ones(96, np.float16)}
    shapes = {f"{NAME}.weight": one.weight.shape}
    config = form.config({NAME: (one.weight.scheme, one.activation)}, shapes=shapes)
    write_shard(folder / f"{form.stem}.safetensors", tensors)
    write_json(folder / "config.json", {**CONFIG, "quantization_config": config})


@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_quantized_layer_is_one_report(tmp_path: Path, form: str) -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((40, 96), np.float32)
    if form == "vptq":  # which holds vectors alone: the nearest codewords are no matter here
        scheme, stored = "v4k16/tensor/f16", 10 * 12 * 4 + 16 * 4 * 2  # codes of 4 weights in words, the codebook
        book = random.standard_normal((1, 16, 4)).astype(np.float16).astype(np.float32)
        codes = random.integers(0, 16, (10, 96), np.int32)
        one = QuantizedLayer(VectorTensor(Scheme.parse(scheme), (40, 96), Coded.of(codes, book)))
    else:
        scheme, stored = "int4/g32/bf16", 40 * 48 + 40 * 3 * 2 + 16  # codes, scales, shape
        one = QuantizedLayer(nearest(weight, scheme))
    quantized(tmp_path, formats.get(form), one)
    report, norm = inspect(tmp_path)
    assert (report.name, report.shape, report.scheme, report.quantized) == (NAME, (40, 96), scheme, True)
    assert report.nbytes == stored
    assert report.bits_per_weight == report.nbytes * 8 / (40 * 96)
    assert (report.peak, report.beyond, report.error) == (None, None, None)
    assert (norm.name, norm.scheme, norm.shape, norm.quantized) == ("model.norm.weight", "F16", (96,), False)
    baseline = tmp_path / "float.safetensors"
    write_shard(baseline, {f"{NAME}.weight": weight})
    expected = np.linalg.norm(one.weight.dequantize() - weight) / np.linalg.norm(weight.astype(np.float64))
    assert inspect(tmp_path, baseline)[0].error == pytest.approx(expected, rel=1e-5)
    assert form == "vptq" or 0.05 < expected < 0.2


def test_quantized_inputs_are_told(tmp_path: Path) -> None:
    quantized(tmp_path, formats.get("compressed-tensors"), layer("int8/channel/bf16", "int8/token", 40, 96))
    assert inspect(tmp_path)[0].scheme == "int8/channel/bf16 x int8/token"


def test_a_baseline_of_another_model(tmp_path: Path) -> None:
    quantized(tmp_path, formats.get("subbyte"), layer("int4/g32/bf16"))
    write_shard(tmp_path / "float.safetensors", {f"{NAME}.weight": np.ones((40, 95), np.float32)})
    with pytest.raises(CheckpointError, match="is this the model"):
        inspect(tmp_path, tmp_path / "float.safetensors")
    write_shard(tmp_path / "float.safetensors", {"other": np.ones((40, 96), np.float32)})
    with pytest.raises(CheckpointError, match="no tensor"):
        inspect(tmp_path, tmp_path / "float.safetensors")


def test_matrices_without_a_ratio(tmp_path: Path) -> None:
    tensors = {
        "empty": np.zeros((0, 4), np.float32),
        "zero": np.zeros((3, 4), np.float32),
        "nan": np.full((3, 4), np.nan, np.float32),
        "codes": np.ones((3, 4), np.int8),
        "constant": Raw("BF16", np.full((3, 4), 0x3F80, np.uint16)),
    }
    write_shard(tmp_path / "x.safetensors", tensors)
    reports = {report.name: report for report in inspect(tmp_path / "x.safetensors")}
    assert reports["constant"].peak == 1.0
    assert all(report.peak is None for name, report in reports.items() if name != "constant")
    assert reports["empty"].bits_per_weight == 0.0


def test_torch_stays_away() -> None:
    code = (
        "import sys, subbyte.schemes, subbyte.tensors, subbyte.checkpoint as c;"
        "c.inspect(sys.argv[1]) if len(sys.argv) > 1 else None; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
