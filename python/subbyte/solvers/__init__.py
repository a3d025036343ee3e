"""How weights are rounded. A new solver is one file here and one line in SOLVERS."""

from __future__ import annotations

from subbyte.solvers.apart import Apart
from subbyte.solvers.base import Grid, Solved, Solver
from subbyte.solvers.bilevel import Bilevel
from subbyte.solvers.coordinate_descent import CoordinateDescent
from subbyte.solvers.gptq import Gptq
from subbyte.solvers.half_quadratic import HalfQuadratic
from subbyte.solvers.ldlq import Ldlq
from subbyte.solvers.min_max import MinMax
from subbyte.solvers.nearest import Nearest
from subbyte.solvers.power_learn import PowerLearn
from subbyte.solvers.power_search import PowerSearch
from subbyte.solvers.vptq import Vptq

__all__ = [
    "SOLVERS",
    "Apart",
    "Bilevel",
    "CoordinateDescent",
    "Gptq",
    "Grid",
    "HalfQuadratic",
    "Ldlq",
    "MinMax",
    "Nearest",
    "PowerLearn",
    "PowerSearch",
    "Solved",
    "Solver",
    "Vptq",
]

SOLVERS: dict[
    str,
    type[Apart]
    | type[Bilevel]
    | type[CoordinateDescent]
    | type[Gptq]
    | type[HalfQuadratic]
    | type[Ldlq]
    | type[MinMax]
    | type[Nearest]
    | type[PowerLearn]
    | type[PowerSearch]
    | type[Vptq],
] = {
    "nearest": Nearest,
    "gptq": Gptq,
    "half_quadratic": HalfQuadratic,
    "coordinate_descent": CoordinateDescent,
    "bilevel": Bilevel,
    "apart": Apart,
    "ldlq": Ldlq,
    "min_max": MinMax,
    "power_search": PowerSearch,
    "power_learn": PowerLearn,
    "vptq": Vptq,
}
"""The names that recipes use."""
