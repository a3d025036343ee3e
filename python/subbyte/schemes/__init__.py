"""What a code may mean: element format, granularity, symmetry and dtype of the scales, in one string.

`Scheme.parse("int4/g128/asym")`; the grammar stands in `subbyte.schemes.scheme`. Where the bits of the codes lie is no
matter of the scheme but of the layout (docs/layouts.md).
"""

from __future__ import annotations

from subbyte.schemes.element import EXPONENTS, TABLES, E8p, Element, Int, Power, Table, Vectors
from subbyte.schemes.scheme import GRANULARITIES, SCALE_DTYPES, Granularity, Levels, ScaleDtype, Scheme
from subbyte.schemes.stored import stored_bytes

__all__ = [
    "EXPONENTS",
    "GRANULARITIES",
    "SCALE_DTYPES",
    "TABLES",
    "E8p",
    "Element",
    "Granularity",
    "Int",
    "Levels",
    "Power",
    "ScaleDtype",
    "Scheme",
    "Table",
    "Vectors",
    "stored_bytes",
]
