"""Formats: what is written reads back, means the same to an independent decoder, and what cannot be held is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.checkpoint.decoder import decode
from tests.checkpoint.layers import layer
from tests.tensors.test_quantized import TWO_LEVELS, nested
from tests.tensors.test_table import KINDS as TABLES
from tests.tensors.test_table import example
from tests.tensors.test_vectors import KINDS, vectors

from subbyte.checkpoint import Raw, Source, formats, write_json, write_shard
from subbyte.errors import CheckpointError, SchemeError, UnknownNameError
from subbyte.schemes import Scheme
from subbyte.tensors import Decomposition, Kept, QuantizedLayer, QuantizedTensor, Sparse, TableTensor, VectorTensor

CT, NATIVE = formats.get("compressed-tensors"), formats.get("subbyte")
VPTQ = formats.get("vptq")
NAME = "model.layers.0.mlp.up_proj"


def store(folder: Path, form: formats.Format, layers: dict[str, QuantizedLayer], dtype: str = "bfloat16") -> Source:
    """A folder with nothing but these layers."""
    tensors = {key: raw for name, one in layers.items() for key, raw in form.tensors(name, one, dtype).items()}
    schemes = {name: (one.weight.scheme, one.activation) for name, one in layers.items()}
    write_shard(folder / f"{form.stem}.safetensors", tensors)
    write_json(
        folder / "config.json",
        {"architectures": ["LlamaForCausalLM"], "quantization_config": form.config(schemes)},
    )
    return Source.open(folder)


def same(one: QuantizedLayer, other: QuantizedLayer) -> None:
    assert one.activation == other.activation
    assert (one.input_scale is None) == (other.input_scale is None)
    if one.input_scale is not None:
        assert np.float32(one.input_scale) == np.float32(other.input_scale)
    assert one.weight.shape == other.weight.shape
    np.testing.assert_array_equal(one.weight.words, other.weight.words, strict=True)
    np.testing.assert_array_equal(one.weight.scale, other.weight.scale, strict=True)
    for part in ("zero", "index"):
        if getattr(one.weight, part) is None:
            assert getattr(other.weight, part) is None
        else:
            np.testing.assert_array_equal(getattr(one.weight, part), getattr(other.weight, part), strict=True)


PACKED = [
    *(
        f"int{bits}/{where}{asym}/bf16"
        for bits in range(2, 9)
        for where in ("g32", "channel")
        for asym in ("", "/asym")
    ),
    "int4/g32/f32",
    "int4/g32/asym/f16",
    "int4/channel/narrow/bf16",
    "int4/tensor/bf16",
]
WITH_INPUTS = [
    ("int8/channel/bf16", "int8/token"),
    ("int8/channel/asym/bf16", "int8/token"),
    ("int8/g32/bf16", "int8/token"),
    ("int8/tensor/bf16", "int8/tensor"),
    ("int8/tensor/bf16", "int8/tensor/static"),
    ("int8/tensor/asym/bf16", "int8/tensor/static"),
    ("int8/tensor/bf16", None),
    ("int4/channel/bf16", "int8/token"),
    ("int4/g32/bf16", "int8/token/asym"),
]
ALL = [*((text, None) for text in PACKED), *WITH_INPUTS]


def decoded(source: Source, name: str) -> np.ndarray:
    """What the oracle makes of a layer, from the tensors and the first config group of a folder."""
    group = source.config["quantization_config"]["config_groups"]["group_0"]
    tensors = {key.removeprefix(f"{name}."): source.array(key) for key in source.names() if key.startswith(f"{name}.")}
    tensors["weight_scale"] = source.floats(f"{name}.weight_scale")
    return decode(tensors, group["weights"])


@pytest.mark.parametrize(("text", "activation"), ALL)
@pytest.mark.parametrize(("rows", "cols"), [(40, 96), (33, 64)])
def test_compressed_tensors_reads_back_and_decodes(
    tmp_path: Path, text: str, activation: str | None, rows: int, cols: int
) -> None:
    written = layer(text, activation, rows, cols)
    source = store(tmp_path, CT, {NAME: written})
    assert CT.layers(source) == [NAME]
    assert CT.shape(source, NAME) == (rows, cols)
    read = CT.read(source, NAME)
    same(read, written)
    np.testing.assert_array_equal(decoded(source, NAME).astype(np.float32), written.weight.dequantize())
    parts = {name.removeprefix(f"{NAME}.") for name in source.names()}
    assert parts <= set(CT.parts)


@pytest.mark.parametrize(
    ("text", "activation"),
    [
        *ALL,
        ("int1/g32/bf16", None),
        ("int4/tensor/asym/bf16", None),
        ("int3/g32/asym/float_zero/f16", None),
        ("int4/tensor/asym/float_zero/f32", None),
        ("int8/channel/f32", "int8/token/narrow"),
    ],
)
def test_our_own_format_reads_back(tmp_path: Path, text: str, activation: str | None) -> None:
    written = layer(text, activation)
    source = store(tmp_path, NATIVE, {NAME: written})
    assert NATIVE.layers(source) == [NAME]
    assert NATIVE.shape(source, NAME) == (40, 96)
    read = NATIVE.read(source, NAME)
    same(read, written)
    assert read.weight.scheme == written.weight.scheme
    stored = sum(source.nbytes(name) for name in source.names() if not name.endswith("shape"))
    assert stored == written.nbytes  # what is counted is what is stored


def test_our_own_format_holds_an_index(tmp_path: Path) -> None:
    given = layer("int4/g32/asym/bf16").weight
    index = np.random.default_rng(0).permutation(np.repeat(np.arange(3, dtype=np.int32), 32))
    weight = QuantizedTensor(given.scheme, given.shape, given.words, given.scale, given.zero, index)
    source = store(tmp_path, NATIVE, {NAME: QuantizedLayer(weight)})
    read = NATIVE.read(source, NAME)
    same(read, QuantizedLayer(weight))
    np.testing.assert_array_equal(read.weight.dequantize(), weight.dequantize())
    with pytest.raises(SchemeError, match=r"static groups.*--format subbyte"):
        CT.tensors(NAME, QuantizedLayer(weight), "bfloat16")


LEVELS = "int4/g16/asym/float_zero/s3z3r16/f16"


@pytest.mark.parametrize("text", [text for text, *_ in TWO_LEVELS])
def test_our_own_format_holds_two_levels(tmp_path: Path, text: str) -> None:
    written = QuantizedLayer(QuantizedTensor.from_codes(**nested(text)))
    source = store(tmp_path, NATIVE, {NAME: written})
    read = NATIVE.read(source, NAME)
    assert read.weight.scheme == written.weight.scheme
    np.testing.assert_array_equal(read.weight.dequantize(), written.weight.dequantize())
    stored = sum(source.nbytes(name) for name in source.names() if not name.endswith("shape"))
    assert stored == written.nbytes
    assert {name.removeprefix(f"{NAME}.") for name in source.names()} <= set(NATIVE.parts)
    with pytest.raises(SchemeError, match="scales that are floats in compressed-tensors"):
        CT.check({NAME: (written.weight.scheme, None)})


@pytest.mark.parametrize("part", ["scale_codes", "scale_scale", "zero_zero"])
def test_damaged_levels_are_refused(tmp_path: Path, part: str) -> None:
    source = store(tmp_path, NATIVE, {NAME: QuantizedLayer(QuantizedTensor.from_codes(**nested(LEVELS)))})
    tensors: dict[str, object] = {name: source.raw(name) for name in source.names()}
    for wrong in (source.array(f"{NAME}.weight_{part}")[1:].copy(), np.zeros(3, np.int64), None):
        changed = {**tensors, f"{NAME}.weight_{part}": wrong}
        write_shard(tmp_path / "subbyte.safetensors", {name: one for name, one in changed.items() if one is not None})
        with pytest.raises(CheckpointError):
            NATIVE.read(Source.open(tmp_path), NAME)


def outliers(cols: int = 96) -> QuantizedLayer:
    """A layer with entries and kept columns beside its codes."""
    dense, random = layer("int4/g32/bf16", cols=cols).weight, np.random.default_rng(4)
    weight = random.standard_normal((40, cols)).astype(np.float32)
    sparse = Sparse.of(weight, random.random((40, cols)) < 0.03)
    return QuantizedLayer(Decomposition(dense, sparse, Kept.of(weight, np.array([5, 60]))))


def test_our_own_format_holds_outliers(tmp_path: Path) -> None:
    written = outliers()
    source = store(tmp_path, NATIVE, {NAME: written})
    read = NATIVE.read(source, NAME).weight
    assert isinstance(read, Decomposition)
    np.testing.assert_array_equal(read.dequantize(), written.weight.dequantize())
    assert read.sparse is not None
    assert read.sparse.columns.dtype == np.uint16
    stored = sum(source.nbytes(name) for name in source.names() if not name.endswith("shape"))
    assert stored == written.nbytes
    assert {name.removeprefix(f"{NAME}.") for name in source.names()} <= set(NATIVE.parts)
    with pytest.raises(SchemeError, match=r"codes alone.*--format subbyte"):
        CT.tensors(NAME, written, "bfloat16")
    assert formats.choose(schemes(("a", "int4/g128", None)), sparse=True) is NATIVE


@pytest.mark.parametrize(
    ("part", "array"),
    [
        ("sparse_pointers", np.arange(41, dtype=np.int32)[::-1].copy()),
        ("sparse_pointers", np.zeros(41, np.int32)),
        ("sparse_pointers", np.zeros(40, np.int32)),
        ("sparse_columns", None),
        ("sparse_columns", np.full(3, 96, np.uint16)),
        ("sparse_values", None),
        ("sparse_values", np.ones(3, np.float16)),
        ("sparse_values", np.full(1, np.nan, np.float32)),
        ("kept_columns", np.array([5, 96], np.int32)),
        ("kept_columns", np.array([60, 5], np.int32)),
        ("kept_columns", None),
        ("kept_values", np.ones((39, 2), np.float16)),
        ("kept_values", np.ones((40, 2), np.int32)),
    ],
)
def test_damaged_outliers_are_refused(tmp_path: Path, part: str, array: np.ndarray | None) -> None:
    source = store(tmp_path, NATIVE, {NAME: outliers()})
    tensors: dict[str, object] = {name: source.raw(name) for name in source.names()}
    if array is None:
        del tensors[f"{NAME}.{part}"]
    else:
        tensors[f"{NAME}.{part}"] = array
    write_shard(tmp_path / "subbyte.safetensors", tensors)
    with pytest.raises(CheckpointError):
        NATIVE.read(Source.open(tmp_path), NAME)


def test_columns_beyond_the_weight_are_refused(tmp_path: Path) -> None:
    source = store(tmp_path, NATIVE, {NAME: outliers()})
    tensors: dict[str, object] = {name: source.raw(name) for name in source.names()}
    columns = source.array(f"{NAME}.sparse_columns").copy()
    columns[-1] = 96
    write_shard(tmp_path / "subbyte.safetensors", {**tensors, f"{NAME}.sparse_columns": columns})
    with pytest.raises(CheckpointError, match="0 to 95"):
        NATIVE.read(Source.open(tmp_path), NAME)


def test_scales_that_the_file_cannot_hold_are_refused() -> None:
    fine = layer("int4/g32")
    for form in (CT, NATIVE):
        assert form.tensors(NAME, fine, "float32")[f"{NAME}.weight_scale"].dtype == "F32"
        with pytest.raises(SchemeError, match=r"resolve int4/g32 to the dtype of the model"):
            form.tensors(NAME, fine, "bfloat16")
        with pytest.raises(SchemeError, match="float64"):
            form.tensors(NAME, fine, "float64")


@pytest.mark.parametrize(("size", "dtype"), [(1.0, "F16"), (2.0**-20, "F32"), (2.0**20, "F32")])
def test_scales_beside_packed_zero_points_lose_nothing(size: float, dtype: str) -> None:
    given = layer("int4/g32/asym/bf16").weight
    weight = QuantizedTensor(given.scheme, given.shape, given.words, given.scale * np.float32(size), given.zero)
    scale = CT.tensors(NAME, QuantizedLayer(weight), "bfloat16")[f"{NAME}.weight_scale"]
    assert scale.dtype == dtype
    np.testing.assert_array_equal(scale.floats(), weight.scale)


def schemes(*pairs: tuple[str, str, str | None]) -> dict[str, tuple[Scheme, Scheme | None]]:
    return {name: (Scheme.parse(text), inputs and Scheme.parse(inputs)) for name, text, inputs in pairs}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([("a", "int1/g32", None)], "scheme of a: given int1/g32"),
        ([("a", "int4/g32/asym/float_zero", None)], "zero points that are codes"),
        ([("a", "int4/g32", None), ("b", "int4/tensor/asym", None)], "scheme of b: given int4/tensor/asym"),
        ([("a", "int4/g32/asym", "int8/token")], "int4/g32/asym with inputs int8/token"),
        ([("a", "int4/g32/asym", None), ("b", "int4/g64/asym", None)], "one scheme for all layers"),
        ([("l.0.experts.0.w1", "int4/g32/asym", None)], "a symmetric scheme for experts"),
        (
            [("l.0.experts.0.w1", "int4/g32", None), ("l.0.experts.0.w2", "int3/g32", None)],
            "one scheme for all experts",
        ),
        ([("a", "int8/channel", "int8/token/narrow")], "expected int8/token: readers"),
        ([("a", "int8/token", None)], "scheme of a: given int8/token"),
    ],
)
def test_what_compressed_tensors_cannot_hold(pairs: list[tuple[str, str, str | None]], says: str) -> None:
    with pytest.raises(SchemeError) as error:
        CT.check(schemes(*pairs))
    assert says in str(error.value)
    if "int8/token" not in pairs[0][1]:
        assert "--format subbyte" in str(error.value)
        assert formats.choose(schemes(*pairs)) is NATIVE


def test_the_choice_is_what_other_software_reads() -> None:
    assert formats.choose(schemes(("a", "int4/g128/asym", None))) is CT
    assert formats.choose(schemes(("a", "int4/g128", None), ("b", "int8/channel", "int8/token"))) is CT
    assert formats.choose(schemes(("a", "int4/g128", None)), indexed=True) is NATIVE
    with pytest.raises(SchemeError, match=r"compressed-tensors: .*subbyte: "):
        formats.choose(schemes(("a", "int8/token", None)))


def test_names_of_formats() -> None:
    assert formats.get("subbyte") is NATIVE
    with pytest.raises(UnknownNameError, match="did you mean 'compressed-tensors'"):
        formats.get("compressed_tensors")
    with pytest.raises(UnknownNameError, match="auto"):
        formats.get("zip")


def test_a_float_model_has_no_format_and_others_are_named() -> None:
    assert formats.detect({}) is None
    assert formats.detect({"quantization_config": {"quant_method": "compressed-tensors"}}) is CT
    with pytest.raises(UnknownNameError, match=r"'gptq', expected one of compressed-tensors, subbyte, vptq, or none"):
        formats.detect({"quantization_config": {"quant_method": "gptq"}})
    with pytest.raises(UnknownNameError):
        formats.detect({"quantization_config": 4})


def test_one_scheme_is_one_group_of_all_linears() -> None:
    pairs = schemes(*((f"model.layers.{i}.mlp.up_proj", "int4/g128/bf16", None) for i in range(12)))
    config = CT.config(pairs, keep=["lm_head", "model.layers.0.mlp.gate"])
    assert config["format"] == "pack-quantized"
    assert config["quantization_status"] == "compressed"
    assert config["ignore"] == ["lm_head", "model.layers.0.mlp.gate"]
    assert "dequantize" not in config
    (group,) = config["config_groups"].values()
    assert group["targets"] == ["Linear"]
    assert group["weights"] == {
        "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128, "dynamic": False,
    }  # fmt: skip
    assert json.loads(json.dumps(config)) == config


def test_several_schemes_name_their_layers() -> None:
    pairs = schemes(
        *((f"model.layers.{i}.mlp.up_proj", "int4/g128/bf16", None) for i in range(12)),
        *((f"model.layers.{i}.mlp.down_proj", "int8/channel/bf16", "int8/token") for i in range(11)),
        ("model.layers.11.mlp.down_proj", "int4/g128/bf16", None),
    )
    config = CT.config(pairs)
    assert config["format"] == "mixed-precision"
    first, second = config["config_groups"].values()
    assert first["targets"] == ["model.layers.11.mlp.down_proj", r"re:^model\.layers\.\d+\.mlp\.up_proj$"]
    assert second["targets"] == sorted(f"model.layers.{i}.mlp.down_proj" for i in range(11))
    assert second["format"] == "int-quantized"
    assert second["input_activations"] == {
        "num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True,
    }  # fmt: skip


def test_layers_of_several_schemes_read_back(tmp_path: Path) -> None:
    written = {
        "model.layers.0.a": layer("int4/g32/bf16"),
        "model.layers.1.a": layer("int4/g32/bf16", seed=2),
        "model.layers.0.b": layer("int3/channel/bf16"),
        "model.layers.1.b": layer("int8/channel/bf16", "int8/token"),
    }
    source = store(tmp_path, CT, written)
    assert CT.layers(source) == sorted(written)
    for name, one in written.items():
        same(CT.read(source, name), one)


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> Source:
    config = json.loads((folder / "config.json").read_text())
    change(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))
    return Source.open(folder)


def test_an_exact_name_goes_before_a_pattern_before_a_class(tmp_path: Path) -> None:
    store(tmp_path, CT, {NAME: layer("int4/g32/bf16")})

    def groups(right: str, wrong: str) -> Callable[[dict[str, Any]], None]:
        def change(section: dict[str, Any]) -> None:
            good = {**section["config_groups"].popitem()[1], "targets": [right]}
            bad = {**good, "targets": [wrong], "weights": {**good["weights"], "num_bits": 8}}
            section["config_groups"] = {"group_0": bad, "group_1": good}

        return change

    for right, wrong in [(NAME, "re:.*up_proj"), ("re:.*up_proj", "Linear"), (NAME, "Linear"), ("Linear", "Embedding")]:
        assert CT.read(edit(tmp_path, groups(right, wrong)), NAME).weight.scheme.bits == 4


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
@pytest.mark.parametrize("asym", ["", "/asym"])
def test_the_older_packing_is_told_by_its_width(tmp_path: Path, bits: int, asym: str) -> None:
    expected = layer(f"int{bits}/g32{asym}/bf16", rows=45, cols=96)
    source = store(tmp_path, CT, {NAME: expected})
    tensors = {name: source.raw(name) for name in source.names()}
    tensors[f"{NAME}.weight_packed"] = Raw("I32", padded(expected.weight.codes(), bits))
    if expected.weight.zero is not None:
        down = padded(np.ascontiguousarray(expected.weight.zero.T), bits)
        tensors[f"{NAME}.weight_zero_point"] = Raw("I32", np.ascontiguousarray(down.T))
    write_shard(tmp_path / "model.safetensors", tensors)
    source = edit(tmp_path, lambda section: section.update(version="0.16.0"))
    same(CT.read(source, NAME), expected)
    local = {name.removeprefix(f"{NAME}."): raw.data for name, raw in tensors.items()}
    local["weight_scale"] = tensors[f"{NAME}.weight_scale"].floats()
    arguments = {"num_bits": bits, "symmetric": not asym}
    np.testing.assert_array_equal(decode(local, arguments, padded=True), expected.weight.dequantize())


@pytest.mark.parametrize(
    ("version", "padding"), [("0.16.0", True), ("0.17.0", False), ("0.20.0", False), (None, False)]
)
def test_where_both_packings_are_as_wide_the_release_tells(tmp_path: Path, version: str | None, padding: bool) -> None:
    codes = np.random.default_rng(0).integers(0, 32, (4, 12), np.uint8)  # 5 bits: two words in either packing
    scheme = Scheme.parse("int5/channel/bf16")
    weight = QuantizedTensor.from_codes(codes, np.ones((4, 1), np.float32), None, scheme)
    source = store(tmp_path, CT, {NAME: QuantizedLayer(weight)})
    if padding:
        tensors = {name: source.raw(name) for name in source.names()}
        tensors[f"{NAME}.weight_packed"] = Raw("I32", padded(codes, 5))
        write_shard(tmp_path / "model.safetensors", tensors)
    source = edit(tmp_path, lambda section: section.update(version=version))
    np.testing.assert_array_equal(CT.read(source, NAME).weight.codes(), codes)


def padded(codes: np.ndarray, bits: int) -> np.ndarray:
    """The packing of releases before 0.17: floor(32 / bits) whole codes in a word."""
    per_word = 32 // bits
    out = np.zeros((len(codes), -(-codes.shape[1] // per_word)), np.uint64)
    for column in range(codes.shape[1]):
        out[:, column // per_word] |= codes[:, column].astype(np.uint64) << np.uint64(bits * (column % per_word))
    return out.astype(np.uint32).view(np.int32)


def test_the_index_of_older_releases_is_read(tmp_path: Path) -> None:
    given = layer("int4/g32/bf16")
    source = store(tmp_path, CT, {NAME: given})
    tensors = {name: source.raw(name) for name in source.names()}
    index = np.random.default_rng(0).permutation(np.repeat(np.arange(3, dtype=np.int32), 32))
    write_shard(tmp_path / "model.safetensors", {**tensors, f"{NAME}.weight_g_idx": index})
    read = CT.read(Source.open(tmp_path), NAME)
    np.testing.assert_array_equal(read.weight.index, index)
    write_shard(tmp_path / "model.safetensors", {**tensors, f"{NAME}.weight_g_idx": np.full(96, -1, np.int32)})
    assert CT.read(Source.open(tmp_path), NAME).weight.index is None


def group_of(section: dict[str, Any]) -> dict[str, Any]:
    group: dict[str, Any] = section["config_groups"]["group_0"]
    return group


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda section: section.pop("config_groups"), "config_groups"),
        (lambda section: section.update(config_groups={"W4A16": ["Linear"]}), "config_groups"),
        (lambda section: group_of(section).update(targets=["Embedding"]), "no config group"),
        (lambda section: group_of(section).update(targets=["re:("]), "a regular expression"),
        (lambda section: group_of(section).update(format="nvfp4-pack-quantized"), "nvfp4-pack-quantized"),
        (lambda section: group_of(section).update(weights=None), "num_bits, type and strategy"),
        (lambda section: group_of(section)["weights"].update(type="float"), "only integers"),
        (lambda section: group_of(section)["weights"].update(num_bits=16), "integers that we read"),
        (lambda section: group_of(section)["weights"].update(strategy="block"), "integers that we read"),
        (lambda section: group_of(section)["weights"].update(group_size=16), "tensors that do not fit"),
        (lambda section: group_of(section)["weights"].update(num_bits=8), "weight_packed"),
        (lambda section: group_of(section)["weights"].update(symmetric=False), "no tensor"),
    ],
)
def test_a_config_that_does_not_fit_its_tensors(tmp_path: Path, change: Callable[..., object], says: str) -> None:
    store(tmp_path, CT, {NAME: layer("int4/g32/bf16")})
    with pytest.raises(CheckpointError) as error:
        CT.read(edit(tmp_path, change), NAME)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("part", "tensor", "says"),
    [
        ("weight_packed", np.zeros((40, 12), np.int64), "int32 words"),
        ("weight_packed", np.zeros((40, 11), np.int32), "int32 words"),
        ("weight_packed", np.zeros((39, 12), np.int32), "tensors that do not fit"),
        ("weight_packed", np.zeros(480, np.int32), "int32 words"),
        ("weight_scale", np.zeros((40, 3), np.int8), "one of F32, F16, BF16"),
        ("weight_scale", np.full((40, 3), np.inf, np.float32), "a finite number"),
        ("weight_scale", np.ones((40, 4), np.float32), "tensors that do not fit"),
        ("weight_shape", np.array([40, 96], np.int32), "I64, two sizes"),
        ("weight_shape", np.array([40, -96]), "I64, two sizes"),
        ("weight_shape", np.array([40, 96, 1]), "I64, two sizes"),
        ("weight_shape", np.array([40, 1 << 60]), "int32 words"),
    ],
)
def test_a_tensor_that_does_not_fit(tmp_path: Path, part: str, tensor: np.ndarray, says: str) -> None:
    source = store(tmp_path, CT, {NAME: layer("int4/g32/bf16")})
    tensors: dict[str, object] = {name: source.raw(name) for name in source.names()}
    write_shard(tmp_path / "model.safetensors", {**tensors, f"{NAME}.{part}": tensor})
    with pytest.raises(CheckpointError) as error:
        CT.read(Source.open(tmp_path), NAME)
    assert says in str(error.value)
    assert NAME in str(error.value)


def test_bytes_beyond_the_bits_are_refused(tmp_path: Path) -> None:
    source = store(tmp_path, CT, {NAME: layer("int8/channel/bf16", "int8/token")})
    source = edit(tmp_path, lambda section: group_of(section)["weights"].update(num_bits=4))
    with pytest.raises(CheckpointError, match="beyond the bits"):
        CT.read(source, NAME)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda section: section.update(version=2), "a newer subbyte wrote it"),
        (lambda section: section.pop("version"), "version"),
        (lambda section: section.update(layers=[]), "layers in quantization_config"),
        (lambda section: section["layers"].update({NAME: "int4/g32"}), "an object with"),
        (lambda section: section["layers"][NAME].update(weights="int4"), "a scheme"),
        (lambda section: section["layers"][NAME].update(weights=None), "a scheme"),
        (lambda section: section["layers"][NAME].update(weights="int3/g32"), "tensors that do not fit"),
        (lambda section: section["layers"][NAME].update(weights="int4/g32/f32"), None),
        (lambda section: section["layers"][NAME].update(activations="int8/tensor/static"), "input_scale"),
        (lambda section: section["layers"][NAME].update(activations="int8/rows"), "a scheme"),
    ],
)
def test_our_own_config_that_does_not_fit(tmp_path: Path, change: Callable[..., object], says: str | None) -> None:
    store(tmp_path, NATIVE, {NAME: layer("int4/g32/bf16")})
    source = edit(tmp_path, change)
    if says is None:
        assert NATIVE.read(source, NAME).weight.scheme == Scheme.parse("int4/g32/f32")
        return
    with pytest.raises(CheckpointError) as error:
        NATIVE.read(source, NAME)
    assert says in str(error.value)


@pytest.mark.parametrize("text", TABLES)
def test_tables_read_back(tmp_path: Path, text: str) -> None:
    written = TableTensor.from_codes(**example(text))
    source = store(tmp_path, NATIVE, {NAME: QuantizedLayer(written)}, "float32")
    read = NATIVE.read(source, NAME).weight
    assert isinstance(read, TableTensor)
    assert (read.scheme, read.shape) == (written.scheme.resolve("f32"), written.shape)
    np.testing.assert_array_equal(read.dequantize(), written.dequantize())
    assert read.nbytes == written.nbytes
    assert sum(source.nbytes(name) for name in source.names()) == written.nbytes + 16  # its shape
    with pytest.raises(SchemeError, match="integers"):
        CT.check({NAME: (written.scheme, None)})


@pytest.mark.parametrize(
    ("part", "raw"),
    [
        ("weight_exponent", None),
        ("weight_exponent", Raw("F32", np.ones(1, np.float32))),
        ("weight_exponent", Raw("F16", np.ones(2, np.float16))),
        ("weight_exponent", Raw("F16", np.zeros(1, np.float16))),
        ("weight_codes", Raw("I32", np.zeros((5, 8), np.int32))),
        ("weight_shape", Raw("I64", np.array([1 << 40, 96], np.int64))),
        ("kept_columns", Raw("I32", np.zeros(1, np.int32))),
    ],
    ids=str,
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, part: str, raw: Raw | None) -> None:
    tensors = NATIVE.tensors(
        NAME, written := QuantizedLayer(TableTensor.from_codes(**example("power4/g32/f16"))), "f16"
    )
    tensors = {name: tensor for name, tensor in tensors.items() if name != f"{NAME}.{part}"}
    tensors |= {} if raw is None else {f"{NAME}.{part}": raw}
    write_shard(tmp_path / "subbyte.safetensors", tensors)
    config = NATIVE.config({NAME: (written.weight.scheme, None)})
    write_json(tmp_path / "config.json", {"architectures": ["LlamaForCausalLM"], "quantization_config": config})
    with pytest.raises(CheckpointError):
        NATIVE.read(Source.open(tmp_path), NAME)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("text", KINDS)
def test_vectors_read_back(tmp_path: Path, text: str, ordered: bool) -> None:
    written = vectors(text, ordered=ordered)
    source = store(tmp_path, NATIVE, {NAME: QuantizedLayer(written)})
    read = NATIVE.read(source, NAME).weight
    assert isinstance(read, VectorTensor)
    assert (read.scheme, read.shape) == (written.scheme, written.shape)
    np.testing.assert_array_equal(read.dequantize(), written.dequantize())
    assert read.nbytes == written.nbytes
    assert sum(source.nbytes(name) for name in source.names()) == written.nbytes + 16  # its shape
    assert {name.removeprefix(f"{NAME}.") for name in source.names()} <= set(NATIVE.parts)
    with pytest.raises(SchemeError, match="integers"):
        CT.check({NAME: (written.scheme, None)})


@pytest.mark.parametrize(
    ("part", "raw"),
    [
        ("weight_order", None),
        ("weight_order", Raw("U16", np.zeros(72, np.uint16))),
        ("weight_order", Raw("F32", np.zeros(72, np.float32))),
        ("weight_codebook", None),
        ("weight_codebook", Raw("I32", np.zeros((1, 16, 4), np.int32))),
        ("weight_codes", Raw("I32", np.zeros((10, 8), np.int32))),
        ("weight_bias", None),
        ("weight_bias", Raw("F16", np.full(72, 0x7C00, np.uint16))),
        ("outlier_codes", None),
        ("weight_shape", Raw("I64", np.array([1 << 40, 72], np.int64))),
    ],
    ids=str,
)
def test_vectors_that_do_not_fit_are_refused(tmp_path: Path, part: str, raw: Raw | None) -> None:
    tensors = NATIVE.tensors(NAME, written := QuantizedLayer(vectors("v4k16o5v3k8n")), "float16")
    tensors = {name: tensor for name, tensor in tensors.items() if name != f"{NAME}.{part}"}
    tensors |= {} if raw is None else {f"{NAME}.{part}": raw}
    write_shard(tmp_path / "subbyte.safetensors", tensors)
    config = NATIVE.config({NAME: (written.weight.scheme, None)})
    write_json(tmp_path / "config.json", {"architectures": ["LlamaForCausalLM"], "quantization_config": config})
    if part == "weight_order" and raw is None:  # then the columns stand as they are
        assert NATIVE.read(Source.open(tmp_path), NAME).weight.order is None
        return
    with pytest.raises(CheckpointError):
        NATIVE.read(Source.open(tmp_path), NAME)


def vptq_decoded(source: Source, name: str) -> np.ndarray:
    """By the rules of VPTQ's files, in f32: one field after the other out of one long number."""
    entry = source.config["quantization_config"]["config_for_layers"][name]
    rows, cols = entry["out_features"], entry["in_features"]
    (apart_dim, dim), (_, count), (_, more) = (
        entry[key] for key in ("vector_lens", "num_centroids", "num_res_centroids")
    )
    low, high = count.bit_length() - 1, 0 if more == -1 else more.bit_length() - 1
    parts = []
    for c in range(entry["group_num"]):
        part = np.zeros((source.shape(f"{name}.indices")[1] * dim, entry["group_size"]), np.float32)
        for n, words in enumerate(source.array(f"{name}.indices")[c]):
            stream = int.from_bytes(words.tobytes(), "little")
            for j in range(entry["group_size"]):
                field = stream >> (j * (low + high)) & ((1 << (low + high)) - 1)
                main, rest = field & (count - 1), field >> low
                vector = source.floats(f"{name}.centroids.weight")[c].reshape(count, dim)[main]
                if high:
                    vector = vector + source.floats(f"{name}.res_centroids.weight")[c].reshape(more, dim)[rest]
                part[n * dim : (n + 1) * dim, j] = vector
        parts.append(part[:rows])
    if entry["outlier_size"]:
        index = source.array(f"{name}.outlier_indices")[0].view(np.uint16)
        book = source.floats(f"{name}.outlier_centroids.weight").reshape(-1, apart_dim)
        parts.insert(0, book[index].transpose(0, 2, 1).reshape(-1, entry["outlier_size"])[:rows])
    weight = np.concatenate(parts, axis=1)
    if entry["enable_perm"]:
        weight = weight[:, np.argsort(source.array(f"{name}.perm").view(np.uint16))]
    if entry["enable_norm"]:
        weight = weight * source.floats(f"{name}.weight_scale") + source.floats(f"{name}.weight_bias")
    assert weight.shape == (rows, cols)
    return weight


def store_vptq(folder: Path, weight: VectorTensor, change: dict[str, Any] | None = None) -> Source:
    write_shard(folder / "model.safetensors", VPTQ.tensors(NAME, QuantizedLayer(weight), "float16"))
    section = VPTQ.config({NAME: (weight.scheme, None)}, shapes={f"{NAME}.weight": weight.shape})
    section["config_for_layers"][NAME] |= change or {}
    write_json(folder / "config.json", {"architectures": ["LlamaForCausalLM"], "quantization_config": section})
    return Source.open(folder)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("text", [kind for kind in KINDS if kind != "v2k8o5"])
def test_vptq_files_read_back_and_decode(tmp_path: Path, text: str, ordered: bool) -> None:
    written = vectors(text, rows=23, ordered=ordered)
    source = store_vptq(tmp_path, written)
    assert formats.detect(source.config) is VPTQ
    assert VPTQ.layers(source) == [NAME]
    assert VPTQ.shape(source, NAME) == (23, 72)
    read = VPTQ.read(source, NAME).weight
    assert read.scheme.element.columns(72) == written.element.columns(72)
    np.testing.assert_array_equal(read.dequantize(), written.dequantize())
    np.testing.assert_array_equal(vptq_decoded(source, NAME), written.dequantize())
    assert {name.removeprefix(f"{NAME}.") for name in source.names()} <= set(VPTQ.parts)


@pytest.mark.parametrize(
    "change",
    [
        {"in_features": 73},
        {"out_features": 1 << 30},
        {"out_features": "40"},
        {"vector_lens": [3]},
        {"num_centroids": [8, 15]},
        {"num_centroids": [4, 16]},
        {"group_num": 5},
        {"outlier_size": 72},
        {"is_indice_packed": False},
        {"enable_norm": False},
    ],
    ids=str,
)
def test_vptq_files_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError):
        VPTQ.read(store_vptq(tmp_path, vectors("v4k16o5v3k8n"), change), NAME)


def test_what_vptq_files_cannot_hold_is_refused() -> None:
    for text in ("int4/g32", "v4k16o2/tensor", "v4k16/tensor/f32"):
        with pytest.raises(SchemeError, match="subbyte"):
            VPTQ.check({NAME: (Scheme.parse(text), None)})
    with pytest.raises(SchemeError, match="float inputs"):
        VPTQ.check({NAME: (Scheme.parse("v4k16/tensor"), Scheme.parse("int8/token"))})
    with pytest.raises(CheckpointError, match="shape"):
        VPTQ.config({NAME: (Scheme.parse("v4k16/tensor"), None)})
