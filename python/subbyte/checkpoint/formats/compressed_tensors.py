"""compressed-tensors, the format that transformers and vLLM read: `pack-quantized` and `int-quantized` integers.

Layout: docs/layouts.md. A layer is `int-quantized` (one byte a code) where 8-bit weights meet quantized inputs or have
one scale for the whole tensor, and `pack-quantized` (dense words) otherwise; which one, each config group says itself,
because readers would take `int-quantized` for every layer with quantized inputs, 4-bit ones too.

What transformers 5.23 with compressed-tensors 0.20 makes of packed zero points: while loading onto the meta device the
library forgets to pack the ones it expects, and the shapes differ. With `"dequantize": true` in the config transformers
unpacks by itself while it reads, and that works, but for one scheme in the whole model only (a second one is decoded
with the first one's numbers, silently), without quantized inputs, and with every weight rounded to the dtype of its
scale. So packed zero points are held on these terms, and their scales are F16 or F32, never BF16 (`_scale`).

Experts (`EXPERTS` in the name) it always unpacks while it reads, because it stacks them: they have one scheme,
symmetric, and scales as above.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from subbyte import kernels
from subbyte.checkpoint.formats.format import Layers, stored_dtype
from subbyte.checkpoint.formats.native import SCALE_DTYPES, inconsistent, inexact_scale, input_scale, shape_of
from subbyte.checkpoint.raw import Raw
from subbyte.checkpoint.source import Source
from subbyte.errors import CheckpointError, SchemeError, SubbyteError
from subbyte.schemes import Int, Scheme
from subbyte.tensors import QuantizedLayer, QuantizedTensor

__all__ = ["CompressedTensors"]

PACKED, BYTES = "pack-quantized", "int-quantized"
# The release of the library whose layout this is; 3, 5, 6 and 7 bits were packed otherwise before DENSE_SINCE.
VERSION, DENSE_SINCE = "0.20.0", (0, 17)
NATIVE = "write it with --format subbyte"
EXPERTS = ".experts."


class CompressedTensors:
    """The format "compressed-tensors"."""

    name = "compressed-tensors"
    method = "compressed-tensors"
    stem = "model"
    parts: tuple[str, ...] = (
        "weight_packed", "weight", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "input_scale",
        "input_zero_point",
    )  # fmt: skip

    def check(self, layers: Layers, *, indexed: bool = False, sparse: bool = False) -> None:
        """2 to 8 bits; no index; codes alone; inputs as readers of this format quantize them."""
        if sparse:
            given = "weights beside the codes, or rotations around them"
            raise SchemeError("weights", given, "codes alone in compressed-tensors", NATIVE)
        if indexed:
            raise SchemeError(
                "act-order index", "columns of a group apart", "neighbouring columns", f"use static groups, or {NATIVE}"
            )
        for name, (weight, activation) in layers.items():
            if not isinstance(weight.element, Int) or weight.bits < 2:
                raise SchemeError(f"scheme of {name}", weight, "integers of 2 to 8 bits in compressed-tensors", NATIVE)
            if weight.levels is not None:
                raise SchemeError(f"scheme of {name}", weight, "scales that are floats in compressed-tensors", NATIVE)
            if weight.by_input:
                raise SchemeError(f"scheme of {name}", weight, "groups of input columns in compressed-tensors", NATIVE)
            if weight.float_zero:
                raise SchemeError(
                    f"scheme of {name}", weight, "zero points that are codes in compressed-tensors", NATIVE
                )
            if weight.granularity == "token" or weight.static:
                raise SchemeError(f"scheme of {name}", weight, "granularity tensor, channel or group")
            if activation is not None:
                _check_activation(name, activation)
            if _packs_zeros(weight, activation):
                _check_packed_zeros(name, weight, activation, layers)
        experts = {str(_settings(*schemes)): (name, schemes[0]) for name, schemes in layers.items() if EXPERTS in name}
        if len(experts) > 1:
            name, weight = list(experts.values())[-1]
            raise SchemeError(f"scheme of {name}", weight, "one scheme for all experts in compressed-tensors", NATIVE)

    def tensors(self, name: str, layer: QuantizedLayer, dtype: str) -> dict[str, Raw]:
        """See `Format`."""
        weight, scheme = layer.weight, layer.weight.scheme
        self.check({name: (scheme, layer.activation)}, sparse=not isinstance(weight, QuantizedTensor))
        assert isinstance(weight, QuantizedTensor)  # what `check` let through
        self.check({name: (scheme, layer.activation)}, indexed=weight.index is not None)
        scale, points = _scale(name, weight, layer.activation, dtype), weight.zeros()
        flat = scheme.granularity == "tensor"
        tensors = {"weight_scale": Raw(scale.dtype, scale.data.reshape(1)) if flat else scale}
        if _format(scheme, layer.activation) == BYTES:
            tensors["weight"] = Raw("I8", _signed(weight.codes(), scheme.bits))
            if points is not None:
                zero = _signed(points, scheme.bits)
                tensors["weight_zero_point"] = Raw("I8", zero.reshape(1) if flat else zero)
        else:
            tensors["weight_packed"] = Raw("I32", weight.words)
            tensors["weight_shape"] = Raw("I64", np.array(weight.shape, np.int64))
            if points is not None:
                packed = kernels.pack(np.ascontiguousarray(points.T), scheme.bits)
                tensors["weight_zero_point"] = Raw("I32", np.ascontiguousarray(packed.T))
        if layer.input_scale is not None:
            tensors["input_scale"] = Raw("F32", np.array([layer.input_scale], np.float32))
        return {f"{name}.{part}": raw for part, raw in tensors.items()}

    def config(
        self,
        layers: Layers,
        keep: Iterable[str] = ("lm_head",),
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> dict[str, Any]:
        """See `Format`. One group for each pair of schemes: of all linears where there is one pair, else by name."""
        self.check(layers)
        members: dict[str, list[str]] = {}
        settings: dict[str, dict[str, Any]] = {}
        for name, (weight, activation) in layers.items():
            group = _settings(weight, activation)
            members.setdefault(str(group), []).append(name)
            settings[str(group)] = group
        uniform = len(members) == 1
        groups = {
            f"group_{i}": {"targets": ["Linear"] if uniform else _targets(names, layers), **settings[key]}
            for i, (key, names) in enumerate(members.items())
        }
        used = sorted({str(group["format"]) for group in groups.values()})
        zeros = any(_packs_zeros(weight, activation) for weight, activation in layers.values())
        return {
            "quant_method": self.method,
            "format": used[0] if len(used) == 1 else "mixed-precision",
            "quantization_status": "compressed",
            "version": VERSION,
            "config_groups": groups,
            "ignore": sorted(set(keep) - set(layers)),
            "kv_cache_scheme": None,
            **({"dequantize": True} if zeros else {}),
        }

    def layers(self, source: Source) -> list[str]:
        """See `Format`."""
        suffix = ".weight_scale"
        return [name.removesuffix(suffix) for name in source.names() if name.endswith(suffix)]

    def shape(self, source: Source, name: str) -> tuple[int, int]:
        """See `Format`."""
        if f"{name}.weight_shape" in source:
            return shape_of(source, f"{name}.weight_shape")
        shape = source.shape(f"{name}.weight")
        if len(shape) != 2:
            raise CheckpointError(f"{name}.weight", list(shape), "two sizes")
        return shape[0], shape[1]

    def read(self, source: Source, name: str) -> QuantizedLayer:
        """See `Format`. Reads both packings of 3, 5, 6 and 7 bits, and the index that releases before 0.20 wrote."""
        section = source.config["quantization_config"]
        group = _group(section, name)
        scale = source.raw(f"{name}.weight_scale")
        if scale.dtype not in SCALE_DTYPES:
            raise CheckpointError(f"{name}.weight_scale", scale.dtype, f"one of {', '.join(SCALE_DTYPES)}")
        scheme = _scheme(name, group.get("weights"), False).resolve(SCALE_DTYPES[scale.dtype])
        activation = None if group.get("input_activations") is None else _scheme(name, group["input_activations"], True)
        values = scale.floats()
        if values.ndim < 2:
            values = values.reshape(-1, 1)
        try:
            if f"{name}.weight_packed" in source:
                weight = _read_packed(source, name, scheme, values, _version(section))
            else:
                weight = _read_bytes(source, name, scheme, values)
            static = activation is not None and activation.static
            return QuantizedLayer(weight, activation, input_scale(source, f"{name}.input_scale") if static else None)
        except CheckpointError:
            raise
        except SubbyteError as error:
            raise inconsistent(name, error) from error


def _format(weight: Scheme, activation: Scheme | None) -> str:
    """Which of the two layouts a layer gets."""
    return BYTES if weight.bits == 8 and (activation is not None or weight.granularity == "tensor") else PACKED


def _packs_zeros(weight: Scheme, activation: Scheme | None) -> bool:
    """Whether a layer stores packed zero points."""
    return not weight.symmetric and _format(weight, activation) == PACKED


def _check_packed_zeros(name: str, weight: Scheme, activation: Scheme | None, layers: Layers) -> None:
    """The terms on which readers take packed zero points (the head of this file says why)."""
    given = str(weight) if activation is None else f"{weight} with inputs {activation}"
    if weight.granularity == "tensor":
        expected = "a symmetric scheme, or a zero point for each channel or group, in compressed-tensors"
    elif EXPERTS in name:
        expected = "a symmetric scheme for experts in compressed-tensors"
    elif activation is not None:
        expected = "symmetric weights where inputs are quantized, in compressed-tensors"
    elif len({str(_settings(*schemes)) for schemes in layers.values()}) > 1:
        expected = "one scheme for all layers where one is asymmetric, in compressed-tensors"
    else:
        return
    raise SchemeError(f"scheme of {name}", given, expected, NATIVE)


def _scale(name: str, weight: QuantizedTensor, activation: Scheme | None, dtype: str) -> Raw:
    """The scales as they are stored: in the scheme's dtype, which for "auto" is the model's.

    Beside packed zero points, and in experts, a reader rounds each weight to the dtype of its scale. F16 has three bits
    more than BF16 and holds every BF16 number of usual size; where one is too small or too large, the scales are F32.
    """
    values = weight.scales()
    scale = Raw.from_floats(values, stored_dtype(weight.scheme, dtype))
    if not np.array_equal(scale.floats(), values):
        raise inexact_scale(name, weight.scheme, dtype)
    if scale.dtype != "BF16" or not (_packs_zeros(weight.scheme, activation) or EXPERTS in name):
        return scale
    half = Raw.from_floats(values, "F16")
    return half if np.array_equal(half.floats(), values) else Raw("F32", values)


def _check_activation(name: str, activation: Scheme) -> None:
    if activation.granularity not in ("token", "tensor"):
        raise SchemeError(f"activation scheme of {name}", activation, "granularity token or tensor")
    if activation.narrow:
        expected = f"{str(activation).replace('/narrow', '')}: readers of compressed-tensors use all codes"
        raise SchemeError(f"activation scheme of {name}", activation, expected, NATIVE)


def _signed(codes: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.int8]:
    """Codes 0 to 2^b - 1 as the signed numbers of this format; the difference wraps to exactly those."""
    return (codes - np.uint8(Int(bits).middle)).view(np.int8)


def _unsigned(name: str, codes: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """The inverse of `_signed`; CheckpointError for a number beyond the bits."""
    if codes.dtype != np.int8:
        raise CheckpointError(name, codes.dtype, "int8")
    element = Int(bits)
    shifted = codes.view(np.uint8) + np.uint8(element.middle)
    if shifted.size and int(shifted.max()) >= element.levels:
        raise CheckpointError(name, "numbers beyond the bits", f"{-element.middle} to {element.middle - 1}")
    return shifted


def _settings(weight: Scheme, activation: Scheme | None) -> dict[str, Any]:
    """A config group without its targets."""
    return {
        "weights": _arguments(weight, dynamic=False),
        "input_activations": None if activation is None else _arguments(activation, not activation.static),
        "output_activations": None,
        "format": _format(weight, activation),
    }


def _arguments(scheme: Scheme, dynamic: bool) -> dict[str, Any]:
    """A scheme in this format's words; `dynamic`: its scale is found while running."""
    arguments: dict[str, Any] = {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": scheme.granularity,
        "dynamic": dynamic,
    }
    if scheme.group_size is not None:
        arguments["group_size"] = scheme.group_size
    return arguments


def _targets(names: Iterable[str], layers: Layers) -> list[str]:
    """Names of modules, shortened to a pattern where all quantized layers that differ in a number only are meant."""
    names = set(names)
    targets: list[str] = []
    for shape in sorted({re.sub(r"\d+", "0", name) for name in names}):
        alike = [name for name in layers if re.sub(r"\d+", "0", name) == shape]
        if len(alike) > 1 and names.issuperset(alike):
            pattern = "".join(r"\d+" if part.isdigit() else re.escape(part) for part in re.split(r"(\d+)", alike[0]))
            targets.append(f"re:^{pattern}$")
        else:
            targets += sorted(name for name in alike if name in names)
    return targets


def _group(section: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The config group of a layer: an exact name goes before a pattern, and a pattern before a class."""
    groups = section.get("config_groups")
    if not isinstance(groups, Mapping) or not all(isinstance(group, Mapping) for group in groups.values()):
        raise CheckpointError("config_groups in config.json", type(groups).__name__, "an object of groups")
    best: tuple[int, Mapping[str, Any]] | None = None
    for group in groups.values():
        for target in group.get("targets") or ():
            rank = _rank(str(target), name)
            if rank is not None and (best is None or rank < best[0]):
                best = rank, group
    if best is None:
        raise CheckpointError(f"layer {name}", "no config group for it", "a group whose targets name it")
    form = best[1].get("format") or section.get("format")
    if form not in (PACKED, BYTES):
        raise CheckpointError(f"format of {name}", form, f"{PACKED} or {BYTES}", "only integers are read so far")
    return best[1]


def _rank(target: str, name: str) -> int | None:
    """How closely a target means a layer, 0 the closest; None if it does not. Quantized layers are linears."""
    if target == name:
        return 0
    if target.startswith("re:"):
        try:
            return 1 if re.match(target[3:], name) else None
        except re.error as error:
            raise CheckpointError("target in config.json", target, "a regular expression", str(error)) from error
    return 2 if target == "Linear" else None


def _scheme(name: str, arguments: object, activation: bool) -> Scheme:
    """The scheme in a group's weights or input_activations; CheckpointError for what we have no scheme for."""
    if not isinstance(arguments, Mapping):
        raise CheckpointError(f"scheme of {name}", arguments, "an object with num_bits, type and strategy")
    if arguments.get("type", "int") != "int":
        raise CheckpointError(f"type of {name}", arguments["type"], "int", "only integers are read so far")
    size, dynamic = arguments.get("group_size"), bool(arguments.get("dynamic"))
    strategy: Any = arguments.get("strategy") or ("tensor" if size is None else "channel" if size == -1 else "group")
    try:
        return Scheme(
            Int(arguments.get("num_bits", 8)),
            strategy,
            size if strategy == "group" else None,
            symmetric=bool(arguments.get("symmetric", True)),
            static=activation and not dynamic,
        )
    except SchemeError as error:
        raise CheckpointError(f"scheme of {name}", dict(arguments), "integers that we read", str(error)) from error


def _version(section: Mapping[str, Any]) -> tuple[int, ...]:
    """The first two numbers of the library's release that wrote a config; of today's where it does not say."""
    numbers = re.findall(r"\d+", str(section.get("version") or VERSION))
    return tuple(int(number[:9]) for number in numbers[:2])


def _read_bytes(source: Source, name: str, scheme: Scheme, scale: npt.NDArray[np.float32]) -> QuantizedTensor:
    """`int-quantized`: codes and zero points as signed bytes."""
    codes = _unsigned(f"{name}.weight", source.array(f"{name}.weight"), scheme.bits)
    zero = None
    if not scheme.symmetric:
        point = f"{name}.weight_zero_point"
        zero = _unsigned(point, source.array(point), scheme.bits).reshape(scale.shape)
    return QuantizedTensor.from_codes(codes, scale, zero, scheme)


def _read_packed(
    source: Source, name: str, scheme: Scheme, scale: npt.NDArray[np.float32], version: tuple[int, ...]
) -> QuantizedTensor:
    """`pack-quantized`: words along the rows, zero points in words down the output dimension."""
    rows, cols = shape = shape_of(source, f"{name}.weight_shape")
    words = _dense(f"{name}.weight_packed", source.array(f"{name}.weight_packed"), scheme.bits, cols, version)
    zero = None
    if not scheme.symmetric:
        point = f"{name}.weight_zero_point"
        packed = np.ascontiguousarray(source.array(point).T)
        across = kernels.unpack(_dense(point, packed, scheme.bits, rows, version), scheme.bits, rows)
        zero = np.ascontiguousarray(across.T)
    index = None
    if f"{name}.weight_g_idx" in source:
        index = source.array(f"{name}.weight_g_idx").astype(np.int32)
        if scheme.granularity != "group" or (index < 0).all():  # -1 everywhere: "not used"
            index = None
    return QuantizedTensor(scheme, shape, words, scale, zero, index)


def _dense(
    name: str, words: npt.NDArray[np.int32], bits: int, cols: int, version: tuple[int, ...]
) -> npt.NDArray[np.int32]:
    """Words of `cols` codes a row as a dense stream, whichever of the two packings they are in.

    Releases before 0.17 put floor(32 / bits) whole codes in a word. The width tells; where both have the same width
    (a few short rows), the release that wrote the file does.
    """
    per_word = 32 // bits
    dense, padded = -(-cols * bits // 32), -(-cols // per_word)
    if words.ndim != 2 or words.dtype != np.int32 or words.shape[1] not in (dense, padded):
        given = f"{words.dtype} {list(words.shape)}"
        raise CheckpointError(name, given, f"int32 words, {dense} for {cols} codes of {bits} bits")
    if 32 % bits == 0 or (words.shape[1] == dense and (dense != padded or version >= DENSE_SINCE)):
        return words
    shifts = np.arange(per_word, dtype=np.uint32) * np.uint32(bits)
    codes = (words.view(np.uint32)[:, :, None] >> shifts) & np.uint32((1 << bits) - 1)
    packed: npt.NDArray[np.int32] = kernels.pack(
        np.ascontiguousarray(codes.reshape(len(words), -1)[:, :cols].astype(np.uint8)), bits
    )
    return packed
