"""The stated time: what a recipe has to do, over what this machine does in a second."""

from __future__ import annotations

import pytest
from tests.pipeline.mini import MINI, TOKENS

from subbyte.pipeline import plan as plan_module
from subbyte.pipeline.job import prepare
from subbyte.recipe import Recipe
from subbyte.systems import dmmv, gptq, rtn


def test_time_grows_with_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_throughput", lambda: 1e11)

    def seconds(recipe: Recipe) -> float:
        return plan_module.plan(prepare(MINI, recipe, "compressed-tensors"), *TOKENS.shape).seconds

    recipes = rtn(group_size=-1), gptq(group_size=-1), dmmv(iterations=0), dmmv(iterations=5), dmmv(iterations=100)
    times = [seconds(recipe) for recipe in recipes]
    assert times == sorted(times)
    assert times[-1] - times[-3] == pytest.approx(20 * (times[-2] - times[-3]))
