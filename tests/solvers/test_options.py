"""Options of solvers that are out of range, and what solvers say about themselves. What they compute: tests/systems."""

from __future__ import annotations

import numpy as np
import pytest

from subbyte.errors import RecipeError, SchemeError
from subbyte.schemes import Scheme
from subbyte.solvers import (
    SOLVERS,
    Apart,
    Bilevel,
    CoordinateDescent,
    Gptq,
    HalfQuadratic,
    Ldlq,
    Nearest,
    PowerLearn,
    PowerSearch,
    Vptq,
)


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
        (HalfQuadratic, {"p": 0.0}),
        (CoordinateDescent, {"sweeps": 0}),
        (CoordinateDescent, {"relax": -1}),
        (CoordinateDescent, {"block": 0}),
        (CoordinateDescent, {"outliers": 1.0}),
        (CoordinateDescent, {"step": 2.5}),
        (CoordinateDescent, {"start": "gptq", "outliers": 0.01}),
        (Apart, {"share": 1.1}),
        (Apart, {"samples": 0}),
        (Bilevel, {"outliers": -0.1}),
        (Bilevel, {"damp": float("nan")}),
        (Bilevel, {"damp_retries": 11}),
        (Bilevel, {"block": 0}),
        (Vptq, {"damp": -0.1}),
        (Vptq, {"ridge": float("nan")}),
        (Vptq, {"rate": -1.0}),
        (Vptq, {"iterations": -1}),
        (Vptq, {"tune": -1}),
        (Vptq, {"passes": -1}),
        (Vptq, {"refits": 101}),
        (Vptq, {"loose": -0.1}),
        (Vptq, {"seed": -1}),
        (Ldlq, {"level": True, "incoherence": "none"}),
        (PowerSearch, {"exponent": 0.01}),
        (PowerSearch, {"exponent": 3.0}),
        (PowerSearch, {"shrink_steps": 51}),
        (PowerLearn, {"iterations": -1}),
        (PowerLearn, {"lr": float("nan")}),
        (PowerLearn, {"lr_exponent": -1.0}),
        (PowerLearn, {"push": -1.0}),
        (PowerLearn, {"sharpness": 1.0}),
        (HalfQuadratic, {"beta": 0.0}),
        (HalfQuadratic, {"kappa": 0.5}),
        (HalfQuadratic, {"steps": 1001}),
    ],
)
def test_refuses_options_out_of_range(kind: type, options: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        kind(**options)


def test_what_solvers_ask_for() -> None:
    assert set(SOLVERS) == {
        "nearest",
        "gptq",
        "half_quadratic",
        "coordinate_descent",
        "bilevel",
        "apart",
        "ldlq",
        "min_max",
        "power_search",
        "power_learn",
        "vptq",
    }
    assert not Nearest().wanted
    assert not PowerSearch().wanted
    assert PowerLearn().wanted == {"gram"}
    assert not HalfQuadratic().wanted
    assert not HalfQuadratic().indexed
    assert Gptq().wanted == CoordinateDescent().wanted == Vptq().wanted == {"gram"}
    assert not CoordinateDescent(act_order=True).indexed
    assert not Nearest().indexed
    assert not Gptq().indexed
    assert not Gptq(act_order=True, static_groups=True).indexed
    assert Gptq(act_order=True, static_groups=False).indexed
    assert CoordinateDescent(outliers=0.01).sparse
    assert Apart().sparse
    assert not Apart(share=0).sparse
    assert not Apart().indexed
    assert Bilevel().sparse
    assert Bilevel().indexed
    assert not Bilevel(outliers=None, order="identity").sparse
    assert not Bilevel(order="identity").indexed
    assert not any(solver.sparse for solver in (Nearest(), Gptq(), HalfQuadratic(), CoordinateDescent(), Vptq()))


def test_zero_points_are_floats_where_the_solver_finds_floats() -> None:
    weight = np.eye(32, dtype=np.float32)
    floats, codes = Scheme.parse("int4/g16/asym/float_zero/f32"), Scheme.parse("int4/g16/asym/f32")
    assert HalfQuadratic().solve(weight, floats).tensor.zero.dtype == np.float32
    for solver, scheme in ((Nearest(), floats), (Gptq(), floats), (HalfQuadratic(), codes)):
        with pytest.raises(SchemeError, match="zero points"):
            solver.solve(weight, scheme)
