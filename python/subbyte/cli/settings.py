"""From what was typed to a recipe: `--system`, `--bits`, `--group-size`, `--set key=value`, or `--recipe FILE`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from subbyte.errors import RecipeError

if TYPE_CHECKING:
    from subbyte.recipe import Recipe

__all__ = ["integers", "names", "pairs", "recipe", "study_recipe"]


def recipe(
    system: str | None, file: Path | None, bits: int | None, group_size: int | None, settings: Sequence[str]
) -> Recipe:
    """The recipe of a system with its options, or of a file.

    Raises RecipeError where both or neither is given or an option comes twice, UnknownNameError (with the closest
    name) for a system or option that does not exist.
    """
    from subbyte.recipe import Recipe
    from subbyte.systems import find, registry

    options: dict[str, object] = dict(pairs(settings))
    for name, value in (("bits", bits), ("group_size", group_size)):
        if value is not None:
            if name in options:
                raise RecipeError(f"--set {name}", f"{options[name]} beside {value}", "one of the two", "drop one")
            options[name] = value
    if file is not None:
        if system is not None or options:
            given = "--system" if system is not None else "--bits, --group-size or --set"
            raise RecipeError("--recipe", f"{given} beside it", "the file alone", "write the options into the file")
        return Recipe.read(file)
    if system is None:
        raise RecipeError("--system", "nothing", " | ".join(registry()), "`subbyte systems` tells what they are")
    return find(system).recipe(options, parse=True)


def study_recipe(system: str, bits: int, group_size: int | None, options: Mapping[str, object] | None = None) -> Recipe:
    """The recipe of one cell of a comparison: `group_size` goes to the systems that have groups, None is their own.

    Where the scales are quantized too, groups are small by design: larger ones would be another system.
    """
    from subbyte.systems import find

    found = find(system)
    given = {"bits": bits, **(options or {})}
    own = found.recipe(given)
    has_groups = any(option.name == "group_size" for option in found.options)
    if group_size is None or not has_groups or own.weights.levels is not None:
        return own
    return found.recipe({**given, "group_size": group_size})


def pairs(settings: Sequence[str]) -> dict[str, str]:
    """`key=value` texts as a dict, dashes in keys as underscores; RecipeError for anything else, or a key twice.

    >>> pairs(["damp=0.1", "act-order=false"])
    {'damp': '0.1', 'act_order': 'false'}
    """
    found: dict[str, str] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise RecipeError("--set", repr(text), "key=value", "for example --set damp=0.05")
        if key in found:
            raise RecipeError(f"--set {key}", f"{found[key]} and {value}", "one value", "drop one")
        found[key] = value.strip()
    return found


def names(text: str, what: str) -> list[str]:
    """The parts of a list with commas, each once.

    >>> names("rtn, gptq", "--systems")
    ['rtn', 'gptq']
    """
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise RecipeError(what, repr(text), "names with commas between them", f"for example {what} rtn,gptq")
    if len(set(found)) < len(found):
        raise RecipeError(what, repr(text), "each name once")
    return found


def integers(text: str, what: str) -> list[int]:
    """The numbers of a list with commas, each once.

    >>> integers("4,3", "--bits")
    [4, 3]
    """
    try:
        return [int(part) for part in names(text, what)]
    except ValueError:
        raise RecipeError(
            what, repr(text), "whole numbers with commas between them", f"for example {what} 4,3"
        ) from None
