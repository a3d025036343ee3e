"""Element formats: the set of values that one code can take, before scale and zero point."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from subbyte.errors import SchemeError, ShapeError

__all__ = ["E8p", "Element", "Int", "Vectors", "parse_element"]


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
    def bits(self) -> int:
        """Bits of a weight's share of a code, rounded up."""
        width = self.count.bit_length() + max(self.residual, 1).bit_length() - 2
        return -(-width // self.dim)

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


Element = Int | E8p | Vectors


def parse_element(text: str) -> Element | None:
    """The element that `str` gives this text; None for what is none, SchemeError for numbers out of range."""
    if re.fullmatch(r"int[1-8]", text):
        return Int.parse(text)
    if re.fullmatch(r"e8p[234]", text):
        return E8p.parse(text)
    return Vectors.parse(text) if re.match(r"v\d", text) else None
