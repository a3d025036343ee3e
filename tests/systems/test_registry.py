"""Systems by name, and their options as data."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from subbyte import systems
from subbyte.errors import RecipeError, UnknownNameError
from subbyte.recipe import Recipe


def test_all_say_what_they_are() -> None:
    assert list(systems.registry()) == [
        "adadim",
        "awq",
        "best",
        "dmmv",
        "gptq",
        "gwq",
        "hqq",
        "nupes",
        "powerquant",
        "quantease",
        "quip",
        "quip_sharp",
        "rtn",
        "smoothquant",
        "spqr",
        "vptq",
    ]
    for name, system in systems.registry().items():
        assert system.function is getattr(systems, name)
        assert system.title
        assert system.paper
        assert system.summary.endswith(".")
        parameters = inspect.signature(system.function).parameters
        assert [option.name for option in system.options] == list(parameters)
        for option in system.options:
            assert option.default == parameters[option.name].default
            assert len(option.help) > 10, f"{name}.{option.name} has no help"
        recipe = system.recipe()
        assert isinstance(recipe, Recipe)
        assert recipe.name == name
        assert recipe == system.function()


def test_each_file_is_short_and_maps_the_paper() -> None:
    for name in systems.registry():
        path = Path(systems.__file__).parent / f"{name}.py"
        text = path.read_text("utf-8")
        assert text.count("\n") <= 150
        assert "->" in text.split('"""')[1]
        assert "Left out" in text.split('"""')[1]


@pytest.mark.parametrize(
    ("system", "options", "expected"),
    [
        ("gptq", {"bits": "3", "group_size": "-1", "symmetric": "true"}, systems.gptq(3, -1, True)),
        ("gptq", {"damp": "0.1", "act_order": "off"}, systems.gptq(damp=0.1, act_order=False)),
        ("smoothquant", {"alpha": "search", "level": "O3"}, systems.smoothquant(alpha="search", level="O3")),
        ("smoothquant", {"alpha": "0.8"}, systems.smoothquant(alpha=0.8)),
        ("rtn", {"activations": "int8/token", "group_size": "0"}, systems.rtn(group_size=0, activations="int8/token")),
    ],
)
def test_texts_of_the_command_line_become_options(system: str, options: dict[str, object], expected: Recipe) -> None:
    assert systems.find(system).recipe(options, parse=True) == expected


def test_unknown_names_are_answered_with_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="'gptq'"):
        systems.find("gtpq")
    with pytest.raises(UnknownNameError, match="'group_size'"):
        systems.find("gptq").recipe({"groupsize": 3})


@pytest.mark.parametrize(
    ("system", "options"),
    [
        ("gptq", {"bits": "four"}),
        ("gptq", {"bits": 0}),
        ("gptq", {"bits": 9}),
        ("gptq", {"bits": True}),
        ("gptq", {"group_size": 0}),
        ("gptq", {"group_size": -2}),
        ("gptq", {"act_order": 1}),
        ("gptq", {"damp": float("nan")}),
        ("awq", {"grid": 0}),
        ("rtn", {"activations": "int8/token"}),
        ("smoothquant", {"level": "O4"}),
        ("smoothquant", {"alpha": 2.0}),
        ("smoothquant", {"bits": 1}),
        ("quip", {"rounding": "allbal", "passes": 0}),
        ("quip", {"spread": 0.0}),
        ("quip_sharp", {"bits": 5}),
        ("powerquant", {"bits": 1}),
        ("powerquant", {"exponent": 4.0}),
        ("nupes", {"iterations": -1}),
        ("nupes", {"scope": "model"}),
        ("quip_sharp", {"scale_override": 0.0}),
        ("best", {"bits": 8}),
        ("best", {"refits": -1}),
        ("vptq", {"bits": 9}),
        ("vptq", {"outliers": 1.0, "permute": False}),
        ("vptq", {"tune_rate": -1.0}),
    ],
)
def test_wrong_values_are_recipe_errors(system: str, options: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        systems.find(system).recipe(options)
