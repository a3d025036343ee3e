"""Checkpoint formats: how quantized layers lie in a folder, one file each.

    compressed_tensors   what transformers and vLLM load by themselves
    native               "subbyte", docs/format.md: whatever no other format can hold
    vptq                 vectors of codebooks as VPTQ's own package has them; only where it is asked for

To add one: a file here with a class that has what `Format` asks for, and a line in `FORMATS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from subbyte.checkpoint.formats.compressed_tensors import CompressedTensors
from subbyte.checkpoint.formats.format import Format, Layers
from subbyte.checkpoint.formats.native import Native
from subbyte.checkpoint.formats.vptq import VptqFormat
from subbyte.checkpoint.source import Source
from subbyte.errors import SchemeError, UnknownNameError

__all__ = [
    "FORMATS",
    "CompressedTensors",
    "Format",
    "Layers",
    "Native",
    "VptqFormat",
    "choose",
    "detect",
    "get",
    "logical",
]

# In the order in which "auto" tries them: what transformers reads comes first, and ours holds all that is left.
FORMATS: dict[str, Format] = {form.name: form for form in (CompressedTensors(), Native(), VptqFormat())}


def get(name: str) -> Format:
    """The format of that name; UnknownNameError lists them all."""
    if name in FORMATS:
        return FORMATS[name]
    near = difflib.get_close_matches(name, FORMATS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "pass auto to have it chosen"
    raise UnknownNameError("checkpoint format", repr(name), f"one of {', '.join(FORMATS)}", hint)


def choose(layers: Layers, *, indexed: bool = False, sparse: bool = False) -> Format:
    """The first format that can hold these layers; `indexed` says that groups are no neighbouring columns (act-order),
    `sparse` that weights stand beside the codes.

    Raises SchemeError, with every format's reason, if none can.
    """
    reasons = []
    for form in FORMATS.values():
        try:
            form.check(layers, indexed=indexed, sparse=sparse)
        except SchemeError as error:
            reasons.append(f"{form.name}: {error}")
        else:
            return form
    raise SchemeError(
        "checkpoint format", "schemes that none holds", "schemes that one format holds", "; ".join(reasons)
    )


def detect(config: Mapping[str, Any]) -> Format | None:
    """The format of a folder with this config.json; None where nothing is quantized, UnknownNameError for others."""
    section = config.get("quantization_config")
    if section is None:
        return None
    method = section.get("quant_method") if isinstance(section, Mapping) else section
    for form in FORMATS.values():
        if method == form.method:
            return form
    known = ", ".join(form.method for form in FORMATS.values())
    hint = "start from the float model, or convert it with the software that wrote it"
    raise UnknownNameError("quant_method in config.json", repr(method), f"one of {known}, or none", hint)


def logical(source: Source) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's tensors as if it were float: `<layer>.weight` for what is quantized."""
    shapes = {name: source.shape(name) for name in source.names()}
    form = detect(source.config)
    if form is None:
        return shapes
    for name in form.layers(source):
        for part in form.parts:
            shapes.pop(f"{name}.{part}", None)
        shapes[f"{name}.weight"] = form.shape(source, name)
    return shapes
