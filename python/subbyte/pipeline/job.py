"""A job: a model and a recipe that were found to fit each other, before anything is computed or written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from subbyte import anatomy as anatomies
from subbyte.anatomy import Anatomy
from subbyte.calibration import Stream
from subbyte.checkpoint import Source, formats
from subbyte.errors import CheckpointError, DtypeError, RecipeError, ShapeError
from subbyte.recipe import Recipe
from subbyte.schemes import ScaleDtype, Scheme
from subbyte.transforms import ChooseDimension

__all__ = ["Job", "prepare"]

SCALES: dict[str, ScaleDtype] = {"BF16": "bf16", "F16": "f16", "F32": "f32", "F64": "f32"}
SAMPLE = 1 << 20


@dataclass(frozen=True)
class Job:
    """What is to be done to which model.

    anatomy   knows only the linears that get quantized: what else reads a scaled input counts as float
    schemes   of every linear that gets quantized, with the scale dtype that will be stored; where the recipe chooses
              schemes or the direction of groups itself, `settle` says what became of them
    others    the schemes that a linear may have in that one's place, of those that have any
    stream    the float model, block by block
    """

    source: Source
    anatomy: Anatomy
    recipe: Recipe
    schemes: dict[str, Scheme]
    others: dict[str, list[Scheme]]
    format: formats.Format
    stream: Stream

    @property
    def layers(self) -> formats.Layers:
        """What checkpoint formats ask for: the schemes of weight and inputs of every quantized linear."""
        return {name: (scheme, self.recipe.activations) for name, scheme in self.schemes.items()}

    def settle(self, schemes: Mapping[str, str]) -> bool:
        """Takes over the schemes that layers were rounded by; whether any is another than was known."""
        found = {name: Scheme.parse(scheme) for name, scheme in schemes.items()}
        changed = any(self.schemes[name] != scheme for name, scheme in found.items())
        self.schemes.update(found)
        return changed

    def tensors_of(self, i: int) -> list[str]:
        """The names of block i's tensors in the source."""
        prefix = self.anatomy.block(i) + "."
        return [name for name in self.source.names() if name.startswith(prefix)]

    def tensors_outside(self) -> list[str]:
        """The names of the source's tensors that belong to no block."""
        inside = {name for i in range(self.anatomy.n_blocks) for name in self.tensors_of(i)}
        return [name for name in self.source.names() if name not in inside]

    def config(self) -> dict[str, Any]:
        """config.json of the output."""
        matrices = {
            name.removesuffix(".weight")
            for name in self.source.names()
            if name.endswith(".weight") and len(self.source.shape(name)) == 2
        }
        keep = (matrices | {self.anatomy.head}) - set(self.schemes) - set(self.anatomy.embedding) - {""}
        shapes = {name: self.source.shape(name) for name in self.source.names()}
        section = self.format.config(self.layers, sorted(keep), shapes)
        return {**self.source.config, "quantization_config": section}

    def fingerprint(self) -> dict[str, str]:
        """Hashes of what decides the output. Weight files count by name, size, first and last MiB: reading all of a
        large model twice would take minutes."""
        files = hashlib.sha256()
        for shard in self.source.shards():
            size = shard.stat().st_size
            with shard.open("rb") as file:
                files.update(f"{shard.name} {size} ".encode() + file.read(SAMPLE))
                file.seek(max(size - SAMPLE, 0))
                files.update(file.read(SAMPLE))
        config = json.dumps(self.source.config, sort_keys=True).encode()
        return {"model": files.hexdigest(), "config": hashlib.sha256(config).hexdigest(), "format": self.format.name}


def prepare(path: Path, recipe: Recipe, format: str) -> Job:
    """Opens the model and checks that every linear can take its scheme, and the format every scheme.

    Raises CheckpointError (no readable float model), ArchitectureError, RecipeError, ShapeError (a group size that does
    not divide, naming the module), SchemeError, UnknownNameError (format).
    """
    if not isinstance(recipe, Recipe):
        raise RecipeError("recipe", type(recipe).__name__, "a Recipe", "call a system: subbyte.systems.gptq(bits=4)")
    source = Source.open(path)
    if "quantization_config" in source.config:
        raise CheckpointError(
            str(path), "a model that is quantized already", "a float model", "start from the original"
        )
    whole = anatomies.find(source.config, {name: source.shape(name) for name in source.names()})
    if format != "auto":
        formats.get(format)  # an unknown one is reported before the model is looked at
    schemes = {name: _fitting(source, name, scheme) for name, scheme in recipe.assign(whole).items()}
    others = {name: [_fitting(source, name, scheme) for scheme in recipe.candidates(name)] for name in schemes}
    possible = schemes | {f"{name} as {scheme}": scheme for name in schemes for scheme in others[name]}
    both = any(isinstance(transform, ChooseDimension) for transform in recipe.transforms)
    layers: formats.Layers = {
        name: (replace(scheme, by_input=scheme.by_input or both), recipe.activations)
        for name, scheme in possible.items()
    }
    indexed = recipe.solver.indexed and any(scheme.granularity == "group" for scheme in possible.values())
    sparse = recipe.solver.sparse
    chosen = formats.choose(layers, indexed=indexed, sparse=sparse) if format == "auto" else formats.get(format)
    chosen.check(layers, indexed=indexed, sparse=sparse)
    stream = Stream(source.config, whole, source.read)
    real = {name for i in range(whole.n_blocks) for name in stream.anatomy.linears(i)}
    schemes = {name: scheme for name, scheme in schemes.items() if name in real}
    if not schemes:
        raise RecipeError("recipe", "every linear kept as it is", "a linear to quantize", "narrow ignore or overrides")
    stream.anatomy = stream.anatomy.restricted(schemes)
    others = {name: found for name, found in others.items() if name in schemes and found}
    return Job(source, stream.anatomy, recipe, schemes, others, chosen, stream)


def _fitting(source: Source, name: str, scheme: Scheme) -> Scheme:
    """The scheme with its scale dtype resolved."""
    weight = f"{name}.weight"
    shape, dtype = source.shape(weight), source.dtype(weight)
    if dtype not in SCALES:
        raise DtypeError(weight, dtype, f"a float dtype ({', '.join(SCALES)})", "start from the float model")
    if len(shape) != 2 or 0 in shape:
        raise ShapeError(weight, list(shape), "[outputs, inputs], none of them 0")
    try:
        scheme.group(scheme.along((shape[0], shape[1])))
    except ShapeError as error:
        _, given, expected, hint = error.args
        raise ShapeError(f"group size of {name}", given, expected, hint) from None
    length = shape[1] if scheme.by_input else shape[0]
    if scheme.levels is not None and length % scheme.levels.run:
        expected = f"a divisor of {length} ({'inputs' if scheme.by_input else 'outputs'} of {name})"
        raise ShapeError(f"rows of a run in {scheme}", scheme.levels.run, expected, "keep that layer, or take 8 or 16")
    return scheme.resolve(SCALES[dtype])
