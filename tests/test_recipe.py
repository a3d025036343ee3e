"""Recipes are data: they read back equal, and whatever is wrong in one is named."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subbyte import anatomy
from subbyte.errors import RecipeError, SchemeError, SubbyteError
from subbyte.recipe import Allocation, Recipe, typed
from subbyte.schemes import Int, Scheme
from subbyte.solvers import Gptq, Nearest
from subbyte.systems import registry, rtn, smoothquant
from subbyte.transforms import ActivationAwareClip, ActivationAwareScale, Smooth

PLAIN = {"name": "mine", "weights": "int4/g128", "solver": "nearest"}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 64,
}
PARTS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
PARTS += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
NAMES = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
NAMES += [f"model.layers.{i}.{part}.weight" for i in range(2) for part in PARTS]

unit = st.floats(0, 1, allow_nan=False)
names = st.text(min_size=1, max_size=30)
weight_schemes = st.builds(
    lambda bits, group, symmetric, dtype: Scheme(
        Int(bits), "group" if group else "channel", group, symmetric, scale_dtype=dtype
    ),
    st.integers(1, 8),
    st.sampled_from([None, 32, 64, 128]),
    st.booleans(),
    st.sampled_from(["auto", "f16", "bf16", "f32"]),
)
transforms = st.one_of(
    st.builds(Smooth, alpha=st.one_of(unit, st.just("search")), extra_sites=st.booleans()),
    st.builds(ActivationAwareScale, grid=st.integers(1, 40), duo=st.booleans(), grouped=st.booleans(), eps=unit),
    st.builds(ActivationAwareClip, shrink_steps=st.integers(1, 20), forced_zero=st.booleans()),
)
solvers = st.one_of(
    st.builds(Nearest, forced_zero=st.booleans(), eps=unit, clip_search=st.booleans()),
    st.builds(Gptq, act_order=st.booleans(), static_groups=st.booleans(), damp=unit, damp_retries=st.integers(0, 10)),
)
patterns = st.one_of(st.sampled_from(["*.down_proj", "re:model\\.layers\\.[01]\\..*", "lm_head", "'quoted': {"]), names)
patterns = patterns.filter(lambda text: not text.startswith("re:") or text.startswith("re:model"))
recipes = st.builds(
    Recipe,
    name=names,
    weights=weight_schemes,
    solver=solvers,
    transforms=st.lists(transforms, max_size=3).map(tuple),
    activations=st.sampled_from([None, Scheme.parse("int8/token"), Scheme.parse("int8/tensor/static")]),
    overrides=st.lists(st.tuples(patterns, st.one_of(weight_schemes, st.just("keep"))), max_size=3).map(tuple),
    ignore=st.lists(patterns, max_size=3).map(tuple),
    propagate=st.sampled_from(["quantized", "float"]),
    true_sequential=st.booleans(),
    allocate=st.none() | st.builds(Allocation, st.lists(weight_schemes, min_size=1, max_size=3).map(tuple)),
    allow_unfused=st.booleans(),
)
# A recipe that compensates has a solver with a Gram matrix, and goes through a block stage by stage.
compensating = st.builds(
    replace,
    recipes,
    solver=st.just(Gptq()),
    propagate=st.just("quantized"),
    true_sequential=st.just(True),
    compensate=unit,
)


@settings(max_examples=60, deadline=None)
@given(st.one_of(recipes, compensating))
def test_reads_back_equal_from_data_yaml_and_json(recipe: Recipe) -> None:
    assert Recipe.from_data(recipe.to_data()) == recipe
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert Recipe.from_yaml(json.dumps(recipe.to_data())) == recipe


@pytest.mark.parametrize("name", list(registry()))
def test_every_system_reads_back_from_a_file(name: str, tmp_path: Path) -> None:
    recipe = registry()[name].recipe()
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), "utf-8")
    assert Recipe.read(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weigths": "int4/g128"}, "weights"),
        ({"weights": 4}, "recipe.weights"),
        ({"solver": "gtpq"}, "gptq"),
        ({"solver": {"gptq": {"act_oder": True}}}, "act_order"),
        ({"solver": {"gptq": {"act_order": "yes"}}}, "true or false"),
        ({"solver": {"gptq": {"damp": -1.0}}}, "gptq.damp"),
        ({"solver": {"gptq": {}, "nearest": {}}}, "2 keys"),
        ({"transforms": "smooth"}, "a list"),
        ({"transforms": [{"smooth": {"alpha": "serach"}}]}, "search"),
        ({"transforms": [{"smooth": {"alpha": 1.5}}]}, "0 to 1"),
        ({"transforms": [{"smoth": {}}]}, "smooth"),
        ({"overrides": {"re:(": "keep"}}, "regular expression"),
        ({"overrides": {"*": "int8/token"}}, "for weights"),
        ({"overrides": ["*.down_proj"]}, "a mapping"),
        ({"activations": "int8/channel"}, "token or tensor"),
        ({"propagate": "both"}, "'quantized' or 'float'"),
        ({"ignore": [3]}, "recipe.ignore[0]"),
        ({"name": None}, "recipe.name"),
        ({"true_sequential": 1}, "true or false"),
        ({"compensate": 1.5}, "0 to 1"),
        ({"compensate": 0.5}, "true_sequential False"),
        ({"compensate": 0.5, "true_sequential": True, "solver": "nearest"}, "with nearest"),
        ({"compensate": 0.5, "true_sequential": True, "propagate": "float"}, "propagate float"),
    ],
)
def test_names_what_is_wrong(change: dict[str, Any], named: str) -> None:
    with pytest.raises(RecipeError) as raised:
        Recipe.from_data({**PLAIN, **change})
    assert named in str(raised.value)


@pytest.mark.parametrize("missing", list(PLAIN))
def test_names_what_is_missing(missing: str) -> None:
    with pytest.raises(RecipeError, match=f"recipe.{missing}"):
        Recipe.from_data({key: value for key, value in PLAIN.items() if key != missing})


def test_an_unknown_scheme_is_a_scheme_error() -> None:
    with pytest.raises(SchemeError, match="int4"):
        Recipe.from_data({**PLAIN, "weights": "itn4/g128"})


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        "name: x\nname: y",
        '{"name": "x", "name": "y"}',
        "name: !!python/object/apply:os.system ['true']",
        "[" * 2000,
        "{" * 2000,
        '{"a":' * 2000,
        "? [a, b]\n: c",
        "name: " + "1" * 5000,
        "name: [",
        "- just\n- a list",
        "just words",
        "",
        "<<: {name: x}",
        "x" * (1 << 19),
        "\0",
    ],
)
def test_hostile_and_broken_files_are_recipe_errors(text: str) -> None:
    with pytest.raises(RecipeError):
        Recipe.from_yaml(text)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=200), st.text("{}[]:,\"'&*!-? \nabc012", max_size=60)))
def test_no_text_escapes_the_errors(text: str) -> None:
    with contextlib.suppress(SubbyteError):
        Recipe.from_yaml(text)


def test_an_unreadable_file_is_a_recipe_error(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00name")
    for path in (tmp_path / "absent", tmp_path / "binary", tmp_path):
        with pytest.raises(RecipeError):
            Recipe.read(path)


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("3", int, 3),
        ("0.5", float, 0.5),
        ("2", float, 2.0),
        ("off", bool, False),
        ("search", float | str, "search"),
        ("none", int | None, None),
        ("a, b", tuple[str, ...], ("a", "b")),
    ],
)
def test_texts_of_a_command_line_are_read_as_the_type(text: str, hint: Any, value: object) -> None:
    found = typed(text, hint, "option", parse=True)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("value", "hint"), [(True, int), (1, bool), (1.5, int), ("1", int), (float("nan"), float)])
def test_nothing_else_is_converted(value: object, hint: Any) -> None:
    with pytest.raises(RecipeError):
        typed(value, hint, "option")


# Which module gets what


@pytest.fixture
def llama() -> anatomy.Anatomy:
    return anatomy.find(CONFIG, NAMES)


def test_overrides_go_first_to_last_then_ignore(llama: anatomy.Anatomy) -> None:
    eight = Scheme.parse("int8/channel")
    recipe = replace(
        rtn(),
        overrides=(("model.layers.0.mlp.down_proj", "keep"), ("*.down_proj", eight)),
        ignore=("re:.*o_proj", "lm_head"),
    )
    assigned = recipe.assign(llama)
    assert "model.layers.0.mlp.down_proj" not in assigned
    assert assigned["model.layers.1.mlp.down_proj"] == eight
    assert not any("o_proj" in name for name in assigned)
    assert assigned["model.layers.1.mlp.up_proj"] == rtn().weights
    assert list(assigned) == [name for i in range(2) for name in llama.linears(i) if name in assigned]


def test_fused_layers_must_agree_unless_told_otherwise(llama: anatomy.Anatomy) -> None:
    recipe = replace(rtn(), overrides=(("*.q_proj", Scheme.parse("int8/channel")),))
    with pytest.raises(RecipeError, match="q_proj"):
        recipe.assign(llama)
    kept = replace(rtn(), overrides=(("*.gate_proj", "keep"),))
    with pytest.raises(RecipeError, match="allow_unfused"):
        kept.assign(llama)
    assert len(replace(recipe, allow_unfused=True).assign(llama)) == 14
    together = replace(rtn(), overrides=(("re:.*(q|k|v)_proj", Scheme.parse("int8/channel")),))
    assert len(together.assign(llama)) == 14


def test_an_override_that_matches_nothing_is_an_error(llama: anatomy.Anatomy) -> None:
    for pattern in ("model.layers.0.mlp.dwon_proj", "*.dwon_proj", "re:layers.0"):
        with pytest.raises(RecipeError, match="no module matches"):
            replace(rtn(), overrides=((pattern, "keep"),)).assign(llama)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "int4/g128"},
        {"weights": Scheme.parse("int8/token")},
        {"solver": "gptq"},
        {"transforms": [Smooth()]},
        {"transforms": (Nearest(),)},
        {"overrides": (("a",),)},
        {"ignore": ("",)},
    ],
)
def test_wrong_fields_are_recipe_errors(change: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        replace(rtn(), **change)


def test_says_which_statistics_it_needs() -> None:
    assert rtn().wanted == frozenset()
    assert smoothquant(level="O3").wanted == {"absmax"}
    assert rtn(bits=8, group_size=-1, activations="int8/tensor/static").wanted == {"absmax"}
    assert replace(rtn(), solver=Gptq(), transforms=(ActivationAwareScale(),)).wanted == {"gram", "absmean"}


def test_importing_recipes_and_systems_imports_no_torch() -> None:
    code = "import subbyte.recipe, subbyte.systems, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
