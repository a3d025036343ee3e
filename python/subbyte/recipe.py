"""A recipe: which transforms, solver and schemes make a quantized model out of a float one. Data, nothing else.

    Recipe(name="gptq", weights=Scheme.parse("int4/g128/asym"), solver=Gptq())

and the same as YAML (`to_yaml`, `from_yaml`; JSON is read too):

    name: gptq
    weights: int4/g128/asym
    solver: {gptq: {act_order: true}}
    overrides: {"*.down_proj": int8/channel, "re:model\\.layers\\.0\\..*": keep}
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, get_args, get_origin

from subbyte.errors import DependencyError, RecipeError, SubbyteError
from subbyte.schemes import Int, Scheme
from subbyte.solvers import SOLVERS, Solver
from subbyte.transforms import TRANSFORMS, Transform

if TYPE_CHECKING:
    from subbyte.anatomy import Anatomy

__all__ = ["Allocation", "Recipe", "Training", "closest", "typed"]

LARGEST_FILE = 1 << 18
DEEPEST = 12
PLAIN = ("propagate", "true_sequential", "compensate", "allow_unfused")
"""Fields that are in a file what they are here."""
TRAININGS = ("tune_blocks", "tune_model")
"""Fields that hold a `Training`, or none."""
T = TypeVar("T")


def closest(name: str, known: Iterable[str]) -> str:
    """A hint that names the most similar of the known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"


def typed(value: object, hint: Any, what: str, *, parse: bool = False) -> Any:
    """`value` as the type `hint` says, or a RecipeError that names `what`.

    Takes bool, int, float, str, None, Literal, Scheme, unions and homogeneous tuples. An int passes for a float and a
    scheme's text for the scheme, nothing else is converted; with `parse` a string (of the command line) is read as the
    type instead.
    """
    origin = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for option in get_args(hint):
            try:
                return typed(value, option, what, parse=parse)
            except RecipeError:
                continue
    elif origin is Literal:
        choices = get_args(hint)
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return value
        raise RecipeError(what, repr(value), " or ".join(map(repr, choices)), closest(str(value), map(str, choices)))
    elif origin is tuple:
        items: Sequence[object] | None = None
        if parse and isinstance(value, str):
            items = [part.strip() for part in value.split(",") if part.strip()]
        elif isinstance(value, list | tuple):
            items = value
        if items is not None:
            inner = get_args(hint)[0]
            return tuple(typed(item, inner, f"{what}[{i}]", parse=parse) for i, item in enumerate(items))
    elif hint is bool:
        if isinstance(value, bool):
            return value
        if parse and str(value).lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
            return str(value).lower() in ("true", "yes", "on", "1")
    elif hint in (int, float) and not isinstance(value, bool):
        number = _number(value, hint) if parse and isinstance(value, str) else value
        if isinstance(number, int) and (hint is int or abs(number) < 2**53):
            return hint(number)
        if isinstance(number, float) and hint is float and math.isfinite(number):
            return number
    elif hint is str and isinstance(value, str):
        return value
    elif hint is Scheme and isinstance(value, str | Scheme):
        return Scheme.parse(value) if isinstance(value, str) else value
    elif hint in (None, type(None)) and (value is None or (parse and str(value).lower() in ("none", "null"))):
        return None
    raise RecipeError(what, repr(value)[:200], _spelled(hint))


def _number(text: str, kind: type[int] | type[float]) -> object:
    try:
        return kind(text)
    except ValueError:
        return text


def _spelled(hint: Any) -> str:
    """A type as a user reads it."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_spelled(option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list of {_spelled(get_args(hint)[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", Scheme: "a scheme"}
    names[type(None)] = "none"
    return names.get(hint, str(hint))


@dataclass(frozen=True)
class Training:
    """How floats learn after rounding, by Adam, while the codes stay.

    epochs       over the calibration text
    rate         learning rate of the floats of quantized weights: codebooks, scales, the vectors beside rotations
    other_rate   of norms and biases
    batch        sequences a step
    held_out     share of the sequences that are not learned from: the state after the epoch that does best on them is
                 kept, which may be the one before the first
    patience     epochs without a better one before it ends
    """

    epochs: int = 5
    rate: float = 5e-4
    other_rate: float = 5e-5
    batch: int = 8
    held_out: float = 0.25
    patience: int = 3

    def __post_init__(self) -> None:
        for name, least, most in (("epochs", 1, 1000), ("batch", 1, 4096), ("patience", 1, 1000)):
            if not least <= typed(getattr(self, name), int, f"training.{name}") <= most:
                raise RecipeError(f"training.{name}", getattr(self, name), f"{least} to {most}")
        for name in ("rate", "other_rate"):
            if not 0 <= typed(getattr(self, name), float, f"training.{name}") <= 1:
                raise RecipeError(f"training.{name}", getattr(self, name), "0 to 1", "5e-4 is a usual one")
        if not 0 < typed(self.held_out, float, "training.held_out") < 1:
            raise RecipeError("training.held_out", self.held_out, "above 0, below 1", "0.25 is the usual one")


@dataclass(frozen=True)
class Allocation:
    """Bits by sensitivity: which scheme each layer gets, at no more bits in all than the recipe's own for all of them
    (`pipeline.allocation`). Layers that servers fuse get one scheme, unless the recipe has `allow_unfused`; those that
    an override names keep the override's.

    candidates   schemes of the weights beside the recipe's own, with fewer bits and with more; integers of 2 bits lose
                 more than is expected of them
    sequences    of the calibration text that the sensitivities are measured on
    seed         of the tokens that are drawn for it from the float model's predictions
    """

    candidates: tuple[Scheme, ...]
    sequences: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not typed(self.candidates, tuple[Scheme, ...], "allocation.candidates"):
            raise RecipeError(
                "allocation.candidates", "none", "one scheme at least", "for example int3/g128, int5/g128"
            )
        for i, candidate in enumerate(self.candidates):
            _weights(f"allocation.candidates[{i}]", candidate)
        if not 1 <= typed(self.sequences, int, "allocation.sequences") <= 1 << 20:
            raise RecipeError("allocation.sequences", self.sequences, "1 to 1048576", "16 are the usual ones")
        if not 0 <= typed(self.seed, int, "allocation.seed") < 1 << 31:
            raise RecipeError("allocation.seed", self.seed, "0 to 2^31 - 1")


@dataclass(frozen=True)
class Recipe:
    """An ordered list of transforms, a solver, and a scheme per module.

    name             a word for logs and reports
    weights          scheme of every quantized linear that no override names
    solver           how weights are rounded
    transforms       function-preserving rewrites, in this order, before rounding
    activations      scheme of the inputs of quantized linears, None: they stay floats
    overrides        (pattern, scheme or "keep") pairs, the first match wins; a pattern is a glob over the whole module
                     name, or a regular expression after "re:", matched from the name's start to its end
    ignore           patterns of modules that stay floats
    propagate        what the next block is calibrated on: the outputs of the "quantized" or of the "float" block
    true_sequential  gather anew after each stage of a block (q/k/v, output, gate/up, down)
    compensate       share of the error of earlier layers, 0 to 1, that each weight is moved to make up for before it
                     is rounded (`pipeline.compensation`); above 0 with true_sequential, quantized propagation and a
                     solver that wants the Gram matrix
    tune_blocks      training of each block's floats, after it is rounded, towards the outputs of the float block
    tune_model       training of all blocks' floats together, after the last one, towards the float model's predictions;
                     the whole model is in memory for it
    allocate         lets each layer have one of several schemes, by what its errors cost, at the bits of `weights`
    allow_unfused    let layers that servers fuse (q/k/v, gate/up) have different schemes
    """

    name: str
    weights: Scheme
    solver: Solver
    transforms: tuple[Transform, ...] = ()
    activations: Scheme | None = None
    overrides: tuple[tuple[str, Scheme | Literal["keep"]], ...] = ()
    ignore: tuple[str, ...] = ("lm_head",)
    propagate: Literal["quantized", "float"] = "quantized"
    true_sequential: bool = False
    compensate: float = 0.0
    tune_blocks: Training | None = None
    tune_model: Training | None = None
    allocate: Allocation | None = None
    allow_unfused: bool = False

    def __post_init__(self) -> None:
        typed(self.name, str, "recipe.name")
        typed(self.propagate, Literal["quantized", "float"], "recipe.propagate")
        typed(self.true_sequential, bool, "recipe.true_sequential")
        typed(self.allow_unfused, bool, "recipe.allow_unfused")
        typed(self.compensate, float, "recipe.compensate")
        if not 0 <= self.compensate <= 1:
            raise RecipeError("recipe.compensate", self.compensate, "0 to 1", "0.5 is the usual one")
        _weights("recipe.weights", self.weights)
        for name in TRAININGS:
            training = getattr(self, name)
            if training is not None and not isinstance(training, Training):
                raise RecipeError(f"recipe.{name}", repr(training)[:200], "a Training, or none")
            if training is not None and self.activations is not None:
                expected = "no training, or float activations"
                given = f"training with activations {self.activations}"
                raise RecipeError(f"recipe.{name}", given, expected, "roundings have no slope to follow")
        if self.allocate is not None and not isinstance(self.allocate, Allocation):
            raise RecipeError("recipe.allocate", repr(self.allocate)[:200], "an Allocation, or none")
        for candidate in self.allocate.candidates if self.allocate else ():
            if type(candidate.element) is not type(self.weights.element):
                expected = f"elements of one kind, as in {self.weights}"
                raise RecipeError("recipe.allocate", str(candidate), expected, "one solver rounds them all")
        if self.activations is not None:
            _scheme("recipe.activations", self.activations)
            if self.activations.granularity not in ("token", "tensor") or not isinstance(self.activations.element, Int):
                expected = "integers, a granularity of token or tensor"
                raise RecipeError("recipe.activations", str(self.activations), expected, "try int8/token")
        if type(self.solver) not in SOLVERS.values():
            raise RecipeError("recipe.solver", repr(self.solver)[:200], f"one of {', '.join(SOLVERS)}")
        for field, items in (("transforms", self.transforms), ("overrides", self.overrides), ("ignore", self.ignore)):
            if not isinstance(items, tuple):
                raise RecipeError(f"recipe.{field}", type(items).__name__, "a tuple")
        for i, transform in enumerate(self.transforms):
            if type(transform) not in TRANSFORMS.values():
                raise RecipeError(f"recipe.transforms[{i}]", repr(transform)[:200], f"one of {', '.join(TRANSFORMS)}")
        for i, pair in enumerate(self.overrides):
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise RecipeError(f"recipe.overrides[{i}]", repr(pair)[:200], "a pair (pattern, scheme or 'keep')")
            _matcher(pair[0], f"recipe.overrides[{i}]")
            if pair[1] != "keep":
                _weights(f"recipe.overrides[{i}]", pair[1])
        for i, pattern in enumerate(self.ignore):
            _matcher(pattern, f"recipe.ignore[{i}]")
        if self.compensate:
            told = self.true_sequential and self.propagate == "quantized"
            if not told or "gram" not in self.solver.wanted:
                solver = next(name for name, kind in SOLVERS.items() if type(self.solver) is kind)
                given = f"{self.compensate} with {solver}"
                given += f", true_sequential {self.true_sequential}, propagate {self.propagate}"
                expected = "a solver that wants the Gram matrix, true_sequential, propagate quantized"
                raise RecipeError("recipe.compensate", given, expected, "0 leaves the weights as they are")

    # What it asks for

    @property
    def wanted(self) -> frozenset[str]:
        """The statistics to gather; empty: no calibration text is needed."""
        wanted = self.solver.wanted.union(*(transform.wanted for transform in self.transforms))
        if self.compensate:
            wanted |= {"drift"}
        if self.tune_blocks or self.tune_model:
            wanted |= {"tokens"}
        if self.allocate:
            wanted |= {"fisher"}
        return wanted | {"absmax"} if self.activations is not None and self.activations.static else wanted

    def scheme(self, module: str) -> Scheme | None:
        """The scheme of a module's weight, None where it stays a float; with `allocate` where it starts from."""
        chosen = self._overridden(module)
        if chosen is not None:
            return None if chosen == "keep" else chosen
        return None if any(_matcher(pattern)(module) for pattern in self.ignore) else self.weights

    def candidates(self, module: str) -> tuple[Scheme, ...]:
        """The schemes beside its own that a quantized module's weight may be allotted."""
        return () if self.allocate is None or self._overridden(module) is not None else self.allocate.candidates

    def _overridden(self, module: str) -> Scheme | Literal["keep"] | None:
        return next((choice for pattern, choice in self.overrides if _matcher(pattern)(module)), None)

    def assign(self, anatomy: Anatomy) -> dict[str, Scheme]:
        """Scheme of every linear that gets quantized, in the model's order.

        Raises RecipeError when an override names no linear of the blocks, or when layers that servers fuse differ
        (unless `allow_unfused`).
        """
        blocks = range(anatomy.n_blocks)
        linears = [name for i in blocks for name in anatomy.linears(i)]
        for pattern, _ in self.overrides:
            if not any(map(_matcher(pattern), linears)):
                literal = not any(c in pattern for c in "*?[(:")
                hint = closest(pattern, linears) if literal else f"patterns match whole names such as {linears[0]}"
                raise RecipeError(f"recipe.overrides[{pattern!r}]", "no module matches", "a linear of a block", hint)
        schemes = {name: self.scheme(name) for name in linears}
        if not self.allow_unfused:
            for group in (group for i in blocks for group in anatomy.fused(i)):
                found = {name: str(schemes[name] or "keep") for name in group if name in schemes}
                if len(set(found.values())) > 1:
                    raise RecipeError(
                        "layers that servers fuse",
                        ", ".join(f"{name}: {scheme}" for name, scheme in found.items()),
                        "one scheme for all of them",
                        "widen the override's pattern, or set allow_unfused",
                    )
        return {name: scheme for name, scheme in schemes.items() if scheme is not None}

    # Data

    def to_data(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers; `Recipe.from_data` reads them back to an equal recipe."""
        data: dict[str, Any] = {
            "name": self.name,
            "weights": str(self.weights),
            "activations": None if self.activations is None else str(self.activations),
            "transforms": [_part(transform, TRANSFORMS) for transform in self.transforms],
            "solver": _part(self.solver, SOLVERS),
            "overrides": [{pattern: str(choice)} for pattern, choice in self.overrides],
            "ignore": list(self.ignore),
        }
        found = {name: getattr(self, name) for name in TRAININGS}
        trained = {name: None if training is None else asdict(training) for name, training in found.items()}
        plain = {name: getattr(self, name) for name in PLAIN}
        given = self.allocate
        allocate = given and {**vars(given), "candidates": [str(candidate) for candidate in given.candidates]}
        return data | trained | {"allocate": allocate} | plain

    @classmethod
    def from_data(cls, data: object) -> Recipe:
        """The recipe that `to_data` wrote; only `name`, `weights` and `solver` have to be there.

        `overrides` may also be one mapping. Raises RecipeError for anything unknown, missing or of a wrong type.
        """
        found = _mapping(data, "recipe")
        known = {field.name: field.default is MISSING for field in fields(cls)}
        for key in found:
            if key not in known:
                raise RecipeError(f"recipe.{key}", "an unknown key", "a field of Recipe", closest(key, known))
        for key, required in known.items():
            if required and key not in found:
                raise RecipeError(f"recipe.{key}", "nothing", "a value", "name, weights and solver have no default")
        made: dict[str, Any] = {key: found[key] for key in ("name", *PLAIN) if key in found}
        made["weights"] = _parse(found["weights"], "recipe.weights")
        if found.get("activations") is not None:
            made["activations"] = _parse(found["activations"], "recipe.activations")
        made["solver"] = _build(found["solver"], SOLVERS, "recipe.solver")
        for name, kind in (*((name, Training) for name in TRAININGS), ("allocate", Allocation)):
            if found.get(name) is not None:
                made[name] = _options(found[name], kind, f"recipe.{name}")
        parts = _list(found.get("transforms") or [], "recipe.transforms")
        made["transforms"] = tuple(_build(p, TRANSFORMS, f"recipe.transforms[{i}]") for i, p in enumerate(parts))
        overrides = found.get("overrides") or []
        rows = [overrides] if isinstance(overrides, Mapping) else _list(overrides, "recipe.overrides")
        pairs = [pair for i, row in enumerate(rows) for pair in _mapping(row, f"recipe.overrides[{i}]").items()]
        made["overrides"] = tuple(
            (pattern, choice if choice == "keep" else _parse(choice, f"recipe.overrides[{pattern!r}]"))
            for pattern, choice in pairs
        )
        if "ignore" in found:
            made["ignore"] = typed(found["ignore"] or [], tuple[str, ...], "recipe.ignore")
        return cls(**made)

    def to_yaml(self) -> str:
        """The recipe as YAML text; needs PyYAML (extra "hf")."""
        return str(_yaml().safe_dump(self.to_data(), sort_keys=False, width=120))

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        """A recipe from YAML, or from JSON (which needs no PyYAML). Tags, anchors, aliases, doubled keys, nesting
        deeper than 12 and files above 256 KiB are refused: a recipe needs none of them."""
        if len(text) > LARGEST_FILE:
            raise RecipeError("recipe", f"{len(text)} characters", f"at most {LARGEST_FILE}")
        return cls.from_data(_read_json(text) if text.lstrip().startswith("{") else _read_yaml(text))

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """A recipe from a .yaml or .json file."""
        try:
            with Path(path).open("rb") as file:
                text = file.read(LARGEST_FILE + 1).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(str(path), str(error), "a readable text file with a recipe") from error
        return cls.from_yaml(text)


# Patterns and schemes


def _matcher(pattern: object, what: str = "pattern") -> Any:
    """A predicate over module names."""
    if not isinstance(pattern, str) or not pattern:
        raise RecipeError(what, repr(pattern)[:200], "a glob, or 're:' and a regular expression")
    if not pattern.startswith("re:"):
        return lambda name: fnmatch.fnmatchcase(name, pattern)
    try:
        return re.compile(pattern[3:]).fullmatch
    except re.error as error:
        raise RecipeError(what, pattern, "a regular expression after 're:'", str(error)) from error


def _scheme(what: str, scheme: object) -> Scheme:
    if not isinstance(scheme, Scheme):
        raise RecipeError(what, repr(scheme)[:200], "a Scheme", "write Scheme.parse('int4/g128')")
    return scheme


def _weights(what: str, given: object) -> None:
    scheme = _scheme(what, given)
    if scheme.granularity == "token" or scheme.static:
        hint = "token and static are for activations; try int4/g128"
        raise RecipeError(what, str(scheme), "a scheme for weights", hint)


def _parse(value: object, what: str) -> Scheme:
    return Scheme.parse(typed(value, str, what))


# Solvers and transforms by name


def _part(part: object, table: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    """{name: options}, defaults included: a file says what was done even after a default changed."""
    name = next(name for name, kind in table.items() if kind is type(part))
    return {name: {field.name: getattr(part, field.name) for field in fields(part)}}  # type: ignore[arg-type]


def _build(data: object, table: Mapping[str, type[T]], what: str) -> T:
    """A solver or transform from `name` or `{name: options}`."""
    found = {data: {}} if isinstance(data, str) else _mapping(data, what)
    if len(found) != 1:
        raise RecipeError(what, f"{len(found)} keys", "one name, with its options below it", "put a dash before each")
    name, options = next(iter(found.items()))
    if name not in table:
        raise RecipeError(what, repr(name), f"one of {', '.join(table)}", closest(name, table))
    return _options(options or {}, table[name], f"{what}.{name}")


def _options(data: object, kind: type[T], what: str) -> T:
    """An instance of `kind` with these values of its fields."""
    hints = typing.get_type_hints(kind)
    known = {field.name: hints[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    made = {}
    for key, value in _mapping(data, what).items():
        if key not in known:
            expected = f"an option of {what.rpartition('.')[2]}"
            raise RecipeError(f"{what}.{key}", "an unknown key", expected, closest(key, known))
        made[key] = typed(value, known[key], f"{what}.{key}")
    return kind(**made)


def _mapping(data: object, what: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise RecipeError(what, f"{type(data).__name__} {str(data)[:80]!r}", "a mapping with names as keys")
    return data


def _list(data: object, what: str) -> Sequence[Any]:
    if not isinstance(data, list | tuple):
        raise RecipeError(what, type(data).__name__, "a list", "put a dash before each item")
    return data


# Files


def _refuse(given: str, expected: str = "plain mappings, lists, texts and numbers", hint: str = "") -> NoReturn:
    raise RecipeError("recipe", given, expected, hint)


def _once(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, value in pairs:
        if key in made:
            _refuse(f"the key {key!r} twice", "each key once")
        made[key] = value
    return made


def _read_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except SubbyteError:
        raise
    except (ValueError, RecursionError) as error:
        # `{name: x}` is YAML's flow style and no JSON: let the other reader decide
        try:
            return _read_yaml(text)
        except DependencyError:
            raise RecipeError("recipe", f"not JSON: {error}", "JSON, or YAML with PyYAML installed") from error


def _read_yaml(text: str) -> object:
    yaml = _yaml()
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):  # a stream of events: nothing is built yet
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                _refuse("nesting deeper than 12 levels")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                _refuse("an anchor or alias", hint="write values out, and quote patterns that begin with * or &")
            if getattr(event, "tag", None):
                _refuse(f"the tag {event.tag}")
        return _plain(yaml, yaml.compose(text, Loader=yaml.SafeLoader))
    except SubbyteError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number with thousands of digits
        raise RecipeError("recipe", f"no YAML: {' '.join(str(error).split())}", "a YAML or JSON document") from error


def _plain(yaml: Any, node: Any) -> object:
    """A composed node as Python data: PyYAML's own constructor lets the last of two equal keys win."""
    if isinstance(node, yaml.MappingNode):
        if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            _refuse("a mapping or list as a key")
        return _once((_plain(yaml, key), _plain(yaml, value)) for key, value in node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(yaml, item) for item in node.value]
    return None if node is None else yaml.SafeLoader("").construct_object(node)


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        hint = "pip install 'subbyte[hf]', or write JSON"
        raise DependencyError("PyYAML", "not installed", "the package", hint) from error
    return yaml
