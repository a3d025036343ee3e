"""Options of solvers that are out of range, and what solvers say about themselves. What they compute: tests/systems."""

from __future__ import annotations

import pytest

from subbyte.errors import RecipeError
from subbyte.solvers import SOLVERS, Gptq, Nearest


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Nearest, {"eps": -1.0}),
        (Nearest, {"norm": 0.0}),
        (Nearest, {"shrink_steps": 0}),
        (Nearest, {"shrink_steps": 101}),
        (Gptq, {"damp": -0.1}),
        (Gptq, {"damp": float("inf")}),
        (Gptq, {"damp_retries": -1}),
        (Gptq, {"block": 0}),
    ],
)
def test_refuses_options_out_of_range(kind: type, options: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        kind(**options)


def test_what_solvers_ask_for() -> None:
    assert set(SOLVERS) == {"nearest", "gptq"}
    assert not Nearest().wanted
    assert Gptq().wanted == {"gram"}
    assert not Nearest().indexed
    assert not Gptq().indexed
    assert not Gptq(act_order=True, static_groups=True).indexed
    assert Gptq(act_order=True, static_groups=False).indexed
