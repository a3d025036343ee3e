"""Element formats: the set of values that one code can take, before scale and zero point."""

from __future__ import annotations

import re
from dataclasses import dataclass

from subbyte.errors import SchemeError

__all__ = ["E8p", "Int"]


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
