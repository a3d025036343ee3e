"""What `--set`, `--recipe` and lists with commas accept, and how they say no."""

from __future__ import annotations

from pathlib import Path

import pytest

from subbyte.cli.demo import BITS, QUICK
from subbyte.cli.settings import integers, names, pairs, recipe, study_recipe
from subbyte.cli.study import Study
from subbyte.errors import RecipeError, UnknownNameError
from subbyte.systems import gptq, registry, smoothquant, spqr


def test_options_are_typed_by_the_system() -> None:
    got = recipe("gptq", None, 3, 64, ["damp=0.05", "act-order=false"])
    assert got == gptq(bits=3, group_size=64, damp=0.05, act_order=False)


def test_what_is_not_given_is_the_default() -> None:
    assert recipe("gptq", None, None, None, []) == gptq()


def test_an_unknown_option_names_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'act_order'"):
        recipe("gptq", None, None, None, ["act_oder=true"])


def test_an_unknown_system_names_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'gptq'"):
        recipe("gpqt", None, None, None, [])


@pytest.mark.parametrize("setting", ["damp=much", "act_order=perhaps", "bits=4.5"])
def test_a_value_of_another_type_names_the_option(setting: str) -> None:
    with pytest.raises(RecipeError, match=rf"gptq\.{setting.split('=')[0]}"):
        recipe("gptq", None, None, None, [setting])


@pytest.mark.parametrize(
    ("settings", "message"), [(["damp"], "key=value"), (["=1"], "key=value"), (["damp=1", "damp=2"], "1 and 2")]
)
def test_malformed_settings(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        pairs(settings)


def test_one_option_in_two_ways() -> None:
    with pytest.raises(RecipeError, match="3 beside 4"):
        recipe("gptq", None, 4, None, ["bits=3"])


def test_neither_system_nor_recipe() -> None:
    with pytest.raises(RecipeError, match="gptq"):
        recipe(None, None, None, None, [])


def test_a_recipe_file_stands_alone(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(gptq(bits=3).to_yaml())
    assert recipe(None, file, None, None, []) == gptq(bits=3)
    with pytest.raises(RecipeError, match="--system beside it"):
        recipe("gptq", file, None, None, [])
    with pytest.raises(RecipeError, match="--bits"):
        recipe(None, file, 4, None, [])


def test_a_study_gives_groups_to_the_systems_that_have_them() -> None:
    assert study_recipe("gptq", 2, 64) == gptq(bits=2, group_size=64)
    assert study_recipe("gptq", 2, None) == gptq(bits=2)
    assert study_recipe("smoothquant", 4, 64) == smoothquant(bits=4)
    assert study_recipe("spqr", 3, 64) == spqr(bits=3)  # its small groups are the method
    assert study_recipe("gptq", 3, 64, {"damp": 0.1}) == gptq(bits=3, group_size=64, damp=0.1)


def test_the_demo_runs_every_system_at_every_width_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    cells = Study(Path("model"), list(registry()), BITS, group_size=64, options=QUICK).recipes()
    assert {system for system, _, _ in cells} == set(registry())
    missing = {(s, b) for b in BITS for s in registry()} - {(s, b) for s, b, _ in cells}
    assert missing == {("best", 8), ("quip_sharp", 8), ("vptq", 8)}
    assert "quip_sharp: 8 bits left out, it has 2, 3 or 4" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="2, 3 or 4"):
        Study(Path("model"), ["rtn", "quip_sharp"], [8]).recipes()


@pytest.mark.parametrize("text", ["", " , ", "rtn,rtn"])
def test_lists_name_each_thing_once(text: str) -> None:
    with pytest.raises(RecipeError, match="--systems"):
        names(text, "--systems")


def test_lists_of_numbers() -> None:
    assert integers("8, 4", "--bits") == [8, 4]
    with pytest.raises(RecipeError, match="--bits"):
        integers("4,x", "--bits")
