"""The published systems by name, and their options as data: what the command line and its help are made of."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args, get_origin

from subbyte.errors import RecipeError, UnknownNameError
from subbyte.recipe import Recipe, closest, typed
from subbyte.schemes import Int, Power, Scheme

__all__ = ["Option", "System", "find", "power_scheme", "registry", "system", "weight_scheme"]

F = TypeVar("F", bound=Callable[..., Recipe])
_SYSTEMS: dict[str, System] = {}


@dataclass(frozen=True)
class Option:
    """One keyword of a system: `type` as a user reads it, `choices` where only some values are allowed."""

    name: str
    type: str
    default: object
    help: str
    choices: tuple[object, ...] = ()


@dataclass(frozen=True)
class System:
    """A published system: `function(**options)` is its recipe; `paper` an arXiv number or what stands in for one."""

    name: str
    title: str
    paper: str
    summary: str
    function: Callable[..., Recipe]
    options: tuple[Option, ...]

    def recipe(self, options: Mapping[str, object] | None = None, *, parse: bool = False) -> Recipe:
        """The recipe for these options; with `parse`, texts of a command line are read as the option's type.

        Raises UnknownNameError for an option the system does not have, RecipeError for a wrong value.
        """
        hints = typing.get_type_hints(self.function)
        known = [option.name for option in self.options]
        made = {}
        for name, value in (options or {}).items():
            if name not in known:
                raise UnknownNameError(f"option of {self.name}", name, ", ".join(known), closest(name, known))
            made[name] = typed(value, hints[name], f"{self.name}.{name}", parse=parse)
        return self.function(**made)


def system(*, title: str, paper: str) -> Callable[[F], F]:
    """Registers a function under its own name; the function stays as it is.

    The help of an option is its line in the function's docstring: name, two spaces or more, text.
    """

    def register(function: F) -> F:
        hints = typing.get_type_hints(function)
        doc = inspect.cleandoc(function.__doc__ or "")
        options = tuple(
            Option(p.name, _spelled(hints[p.name]), p.default, _help(doc, p.name), _choices(hints[p.name]))
            for p in inspect.signature(function).parameters.values()
        )
        summary = " ".join(doc.split("\n\n")[0].split())
        _SYSTEMS[function.__name__] = System(function.__name__, title, paper, summary, function, options)
        return function

    return register


def registry() -> dict[str, System]:
    """All systems by name."""
    return dict(_SYSTEMS)


def find(name: str) -> System:
    """The system of that name; UnknownNameError names the closest."""
    if name not in _SYSTEMS:
        raise UnknownNameError("system", repr(name), ", ".join(_SYSTEMS), closest(name, _SYSTEMS))
    return _SYSTEMS[name]


def weight_scheme(bits: int, group_size: int, symmetric: bool, narrow: bool = False) -> Scheme:
    """The weights' scheme from the three numbers that papers give; group size -1: one scale per output channel."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
        raise RecipeError("bits", bits, "1 to 8")
    if isinstance(group_size, bool) or not isinstance(group_size, int) or not (group_size == -1 or group_size > 0):
        raise RecipeError("group_size", group_size, "-1 (a whole row) or a positive number", "128 is the usual one")
    if group_size == -1:
        return Scheme(Int(bits), "channel", None, symmetric, narrow)
    return Scheme(Int(bits), "group", group_size, symmetric, narrow)


def power_scheme(bits: int, group_size: int, by_row: bool) -> Scheme:
    """The same of weights with an exponent: one a weight, or `by_row` one an output."""
    if bits == 1:
        raise RecipeError("bits", bits, "2 to 8", "an exponent changes nothing between two values")
    scheme = weight_scheme(bits, group_size, symmetric=True)
    return replace(scheme, element=Power(bits, by_row))


def _help(doc: str, name: str) -> str:
    """The text behind `name` in a docstring, with the more indented lines that follow."""
    found = re.search(rf"^{name} {{2,}}(.*(?:\n {{2,}}.*)*)", doc, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def _spelled(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    if get_args(hint) and get_origin(hint) is not tuple:
        return "|".join(_spelled(part) for part in get_args(hint))
    return {type(None): "none"}.get(hint, getattr(hint, "__name__", str(hint)))


def _choices(hint: Any) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()
