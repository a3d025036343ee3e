"""Element formats: the set of values that one code can take, before scale and zero point."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subbyte.errors import SchemeError, ShapeError

__all__ = ["EXPONENTS", "TABLES", "E8p", "Element", "Int", "Power", "Table", "Vectors", "parse_element"]

Floats = NDArray[np.float32]
Exponents = NDArray[np.floating[Any]]

# fmt: off
TABLES: dict[str, tuple[float, ...]] = {
    # quantiles of normal numbers, 0 among them, the largest made 1 (QLoRA, Dettmers et al., 2023, appendix E)
    "nf4": (
        -1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.091050036, 0.0,
        0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
    ),
}
# fmt: on
"""Values of codes by the name of their element, rising, a power of two of them: a new format is a line here."""
EXPONENTS = 1 / 16, 2.0
"""The least and the largest exponent that a weight of `Power` may have."""


@dataclass(frozen=True, slots=True)
class Int:
    """Integers of 1 to 8 bits. Codes are stored unsigned, 0 to 2^bits - 1; a symmetric scheme has its zero at `middle`.

    >>> Int(3).levels, Int(3).middle, str(Int(3))
    (8, 4, 'int3')
    """

    bits: int

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 1 <= self.bits <= 8:
            raise SchemeError("element", f"Int({self.bits!r})", "1 to 8 bits", "write int1 to int8")

    def __str__(self) -> str:
        return f"int{self.bits}"

    @property
    def levels(self) -> int:
        """How many codes there are."""
        return 1 << self.bits

    @property
    def middle(self) -> int:
        """The code that means zero in a symmetric scheme."""
        return 1 << (self.bits - 1)

    @classmethod
    def parse(cls, text: str) -> Int:
        """The inverse of `str`; SchemeError for anything else."""
        match = re.fullmatch(r"int([1-8])", text)
        if match is None:
            raise SchemeError("element of the scheme", repr(text), "int1 to int8", "for example int4/g128")
        return cls(int(match[1]))


@dataclass(frozen=True, slots=True)
class E8p:
    """Vectors of eight numbers of QuIP#'s lattice codebook, at 2 bits a number, or 3 or 4 with a second stage.

    >>> E8p(2).bits, str(E8p(4))
    (2, 'e8p4')
    """

    bits: int

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or self.bits not in (2, 3, 4):
            raise SchemeError("element", f"E8p({self.bits!r})", "2, 3 or 4 bits", "write e8p2, e8p3 or e8p4")

    def __str__(self) -> str:
        return f"e8p{self.bits}"

    @classmethod
    def parse(cls, text: str) -> E8p:
        """The inverse of `str`; SchemeError for anything else."""
        match = re.fullmatch(r"e8p([234])", text)
        if match is None:
            raise SchemeError("element of the scheme", repr(text), "e8p2, e8p3 or e8p4")
        return cls(int(match[1]))


COUNT = "2, 4, 8, ... or 65536 codewords"


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of `dim` neighbouring outputs of an input column, of codebooks that are stored with the weight (VPTQ).

    dim            numbers of a vector, 1 to 64
    count          codewords of a codebook, a power of two from 2 to 65536
    residual       codewords of the codebook of a second stage, whose vector is added; 0: one stage
    groups         groups of neighbouring columns, each with codebooks of its own
    outliers       percent of the columns, the first ones, that are kept apart: at least 0, below 100, in thousandths
    outlier_dim, outlier_count  of their own codebook, which has one stage; 0: they stay floats
    norm           values are between 0 and 1: each column has a scale and a bias

    >>> str(Vectors(8, 65536, residual=256)), Vectors(8, 65536, residual=256).bits
    ('v8k65536r256', 3)
    >>> Vectors.parse("v6k4096o1v4k8192n").columns(4096)
    (41, 4055)
    """

    dim: int
    count: int
    residual: int = 0
    groups: int = 1
    outliers: float = 0
    outlier_dim: int = 0
    outlier_count: int = 0
    norm: bool = False

    def __post_init__(self) -> None:
        part = self.outlier_dim or self.outlier_count
        for name, value, allowed in (
            ("dim", self.dim, _whole(self.dim, 64)),
            ("outlier_dim", self.outlier_dim, not part or _whole(self.outlier_dim, 64)),
            ("groups", self.groups, _whole(self.groups, 9999)),
        ):
            if not allowed:
                raise SchemeError(f"vectors.{name}", repr(value), "a whole number, 1 to 64, for groups to 9999")
        for name, value, needed in (
            ("count", self.count, True),
            ("residual", self.residual, self.residual != 0),
            ("outlier_count", self.outlier_count, part),
        ):
            if needed and not (_whole(value, 65536) and value > 1 and not value & (value - 1)):
                raise SchemeError(f"vectors.{name}", repr(value), COUNT)
        if not 0 <= self.outliers < 100 or round(self.outliers, 3) != self.outliers:
            raise SchemeError("vectors.outliers", self.outliers, "percent of the columns, 0 or more and below 100")
        if part and not self.outliers:
            raise SchemeError("vectors.outlier_count", self.outlier_count, "0 without outliers")

    def __str__(self) -> str:
        residual = f"r{self.residual}" if self.residual else ""
        groups = f"c{self.groups}" if self.groups > 1 else ""
        outliers = f"o{self.outliers:.6g}" if self.outliers else ""
        outliers += f"v{self.outlier_dim}k{self.outlier_count}" if self.outlier_count else ""
        return f"v{self.dim}k{self.count}{residual}{groups}{outliers}{'n' if self.norm else ''}"

    @property
    def width(self) -> int:
        """Bits of a code, both stages together."""
        return self.count.bit_length() + max(self.residual, 1).bit_length() - 2

    @property
    def bits(self) -> int:
        """Bits of a weight's share of a code, rounded up."""
        return -(-self.width // self.dim)

    def columns(self, cols: int) -> tuple[int, int]:
        """Of `cols` columns, those kept apart, and those of a group; ShapeError where none is left for a group."""
        apart = math.ceil(round(self.outliers * cols / 100, 6))
        apart += (cols - apart) % self.groups
        if apart >= cols > 0:
            raise ShapeError(f"columns of {self}", cols, f"more than {self.groups} groups and the outliers")
        return apart, (cols - apart) // self.groups

    @classmethod
    def parse(cls, text: str) -> Vectors:
        """The inverse of `str`; SchemeError for anything else."""
        number = r"[1-9]\d{0,4}"
        match = re.fullmatch(
            rf"v({number})k({number})(?:r({number}))?(?:c({number}))?"
            rf"(?:o(\d{{1,2}}(?:\.\d{{1,3}})?)(?:v({number})k({number}))?)?(n)?",
            text,
            re.ASCII,
        )
        if match is None:
            raise SchemeError("element of the scheme", repr(text), "vectors such as v6k4096 or v8k65536r256o1v4k4096n")
        dim, count, residual, groups, apart_dim, apart_count = (int(match[i] or 0) for i in (1, 2, 3, 4, 6, 7))
        outliers, norm = float(match[5] or 0), match[8] is not None
        found = cls(dim, count, residual, groups or 1, outliers, apart_dim, apart_count, norm)
        if str(found) != text:
            raise SchemeError("element of the scheme", repr(text), f"its one spelling, {found}")
        return found


def _whole(value: object, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest


@dataclass(frozen=True, slots=True)
class Power:
    """Integers q whose power stands for a number: sign(q) (|q| / n) ** (1 / a), n = 2^(bits - 1) - 1 (PowerQuant).

    The exponent a belongs to the weight: one, or `by_row` one for each output. Codes are stored as q + 2^(bits - 1).

    >>> Power(4).values(np.float32([0.5]))[0, 8:].tolist()[:3], str(Power(4, by_row=True))
    ([0.0, 0.020408162847161293, 0.08163265138864517], 'power4r')
    """

    bits: int
    by_row: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 2 <= self.bits <= 8:
            raise SchemeError("element", f"Power({self.bits!r})", "2 to 8 bits", "write power2 to power8")

    def __str__(self) -> str:
        return f"power{self.bits}{'r' if self.by_row else ''}"

    def values(self, exponent: Exponents | None = None) -> Floats:
        """What codes stand for, rising: [E, 2^bits] f32, for exponents [E]; None: 1. The lowest is never chosen."""
        steps = np.arange(-(1 << self.bits - 1), 1 << self.bits - 1)
        return self._inverse(steps, exponent)

    def bounds(self, exponent: Exponents | None = None) -> Floats:
        """Between which numbers a code is chosen: [E, 2^bits - 1] f32, where |x| ** a n is half a whole number."""
        halves = np.arange(-(1 << self.bits - 1), (1 << self.bits - 1) - 1) + 0.5
        bounds = self._inverse(halves, exponent)
        bounds[:, 0] = -np.inf
        return bounds

    def _inverse(self, steps: NDArray[Any], exponent: Exponents | None) -> Floats:
        given = np.ones(1) if exponent is None else exponent.astype(np.float64)
        powers = (np.abs(steps) / ((1 << self.bits - 1) - 1)) ** (1 / given[:, None])
        found: Floats = (np.sign(steps) * powers).astype(np.float32)
        return found


@dataclass(frozen=True, slots=True)
class Table:
    """The values of a table by its name in `TABLES`.

    >>> Table("nf4").bits, float(Table("nf4").values()[0, 7])
    (4, 0.0)
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in TABLES:
            raise SchemeError("element", f"Table({self.name!r})", " | ".join(TABLES))

    def __str__(self) -> str:
        return self.name

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return len(TABLES[self.name]).bit_length() - 1

    def values(self, exponent: Exponents | None = None) -> Floats:
        """What each code stands for, rising: [1, 2^bits] f32; no exponent changes it."""
        return np.array([TABLES[self.name]], np.float32)

    def bounds(self, exponent: Exponents | None = None) -> Floats:
        """Halfway between the values: [1, 2^bits - 1] f32."""
        values = np.array([TABLES[self.name]])
        halfway: Floats = ((values[:, 1:] + values[:, :-1]) / 2).astype(np.float32)
        return halfway


Element = Int | E8p | Power | Table | Vectors


def parse_element(text: str) -> Element | None:
    """The element that `str` gives this text; None for what is none, SchemeError for numbers out of range."""
    if re.fullmatch(r"int[1-8]", text):
        return Int.parse(text)
    if re.fullmatch(r"e8p[234]", text):
        return E8p.parse(text)
    if (found := re.fullmatch(r"power([2-8])(r?)", text)) is not None:
        return Power(int(found[1]), found[2] == "r")
    if text in TABLES:
        return Table(text)
    return Vectors.parse(text) if re.match(r"v\d", text) else None
