"""Scheme: element format + granularity + symmetry + dtype of the scales, complete, hashable, one string.

    scheme      = element "/" granularity ["/asym" ["/float_zero"]] ["/narrow"] ["/static"] ["/" scale]
    element     = "int1" ... "int8"
    granularity = "tensor" | "channel" | "token" | "g" size        size: input columns that share a scale
    scale       = "f32" | "f16" | "bf16"                           left out: the model's dtype ("auto")

A code c of a group with scale s and zero point z means s * (c - z); symmetric schemes have z = 2^(bits - 1) and store
none. Zero points are codes, or with float_zero floats in the scales' dtype. A part left out is the default, so every
scheme has exactly one spelling, and `Scheme.parse(str(s)) == s`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from subbyte.errors import SchemeError, ShapeError
from subbyte.schemes.element import Int

__all__ = ["GRANULARITIES", "SCALE_DTYPES", "Granularity", "ScaleDtype", "Scheme"]

Granularity = Literal["tensor", "channel", "group", "token"]
ScaleDtype = Literal["auto", "f32", "f16", "bf16"]
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)
SCALE_DTYPES: tuple[ScaleDtype, ...] = get_args(ScaleDtype)
FLAGS = ("asym", "float_zero", "narrow", "static")


@dataclass(frozen=True, slots=True)
class Scheme:
    """How numbers become codes.

    element       what one code can be: `Int(bits)`
    granularity   which elements share a scale (and a zero point): the whole tensor, a channel (one output row of a
                  weight), a group of `group_size` neighbouring input columns of a row, or a token (one activation row,
                  whose scale is found while running)
    symmetric     the zero point is the middle code and is not stored
    float_zero    asymmetric weights: the zero point is a float of the scale's dtype, not a code
    narrow        symmetric codes leave out the lowest one: -127 to 127, scale max|x| / 127, in place of -128 to 127,
                  scale max|x| / 127.5 (at 8 bits)
    static        activations: one scale fixed by calibration, in place of one found while running
    scale_dtype   what the scales are rounded to before the codes are chosen; "auto" is the dtype of the model

    Raises SchemeError for a combination that means nothing.

    >>> Scheme.parse("int4/g128/asym").group_size
    128
    >>> str(Scheme(Int(8), "token"))
    'int8/token'
    """

    element: Int
    granularity: Granularity
    group_size: int | None = None
    symmetric: bool = True
    narrow: bool = False
    static: bool = False
    scale_dtype: ScaleDtype = "auto"
    float_zero: bool = False

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise SchemeError("granularity", repr(self.granularity), " | ".join(GRANULARITIES))
        if self.scale_dtype not in SCALE_DTYPES:
            raise SchemeError("scale_dtype", repr(self.scale_dtype), " | ".join(SCALE_DTYPES))
        if self.granularity == "group":
            size = self.group_size
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise SchemeError("group_size", repr(size), "a positive number of columns", "for example int4/g128")
        elif self.group_size is not None:
            raise SchemeError(
                "group_size",
                f"{self.group_size} with granularity {self.granularity}",
                "None",
                'granularity "group" is the one that has a size',
            )
        if self.static and self.granularity != "tensor":
            raise SchemeError(
                "static",
                f"a static scale for each {self.granularity}",
                "granularity tensor",
                "only a whole tensor's scale can be fixed by calibration: write int8/tensor/static",
            )
        if self.float_zero and (self.symmetric or self.granularity == "token" or self.static):
            hint = "for example int4/g64/asym/float_zero"
            raise SchemeError(
                "float_zero", str(replace(self, float_zero=False)), "an asymmetric scheme of weights", hint
            )
        if self.narrow and self.bits == 1:
            raise SchemeError("narrow", "a 1-bit scheme", "2 bits or more", "a narrow 1-bit code has one value only")

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return self.element.bits

    def __str__(self) -> str:
        where = f"g{self.group_size}" if self.granularity == "group" else self.granularity
        given = (not self.symmetric, self.float_zero, self.narrow, self.static)
        flags = [name for name, on in zip(FLAGS, given, strict=True) if on]
        scale = [] if self.scale_dtype == "auto" else [self.scale_dtype]
        return "/".join([str(self.element), where, *flags, *scale])

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Reads the one-string form; SchemeError names the part that is wrong, what may stand there, and the nearest.

        >>> Scheme.parse("int4/g128/asmy")
        Traceback (most recent call last):
            ...
        subbyte.errors.SchemeError: scheme 'int4/g128/asmy': given 'asmy' as part 3, expected asym, float_zero, \
narrow, static, f32, f16 or bf16; did you mean 'asym'?
        """
        if not isinstance(text, str):
            raise SchemeError("scheme", f"{type(text).__name__} {text!r}", "a string such as int4/g128/asym")
        element, *parts = text.split("/")
        if not re.fullmatch(r"int[1-8]", element):
            raise _wrong(text, element, 1, [f"int{bits}" for bits in range(1, 9)])
        if not parts:
            raise SchemeError(
                f"scheme {text!r}",
                "an element alone",
                "element/granularity",
                f"write {text}/g128, {text}/channel, {text}/tensor or {text}/token",
            )
        granularity, size = _granularity(text, parts[0])
        flags = dict.fromkeys(FLAGS, False)
        scale: ScaleDtype = "auto"
        allowed = [*FLAGS, *SCALE_DTYPES[1:]]
        for place, part in enumerate(parts[1:], start=3):
            if part not in allowed:
                out_of_order = part in FLAGS or part in SCALE_DTYPES[1:]
                raise _wrong(text, part, place, allowed, "out of order or twice: " if out_of_order else "")
            if part in flags:
                flags[part] = True
                allowed = allowed[allowed.index(part) + 1 :]
            else:
                scale, allowed = part, []  # type: ignore[assignment]
        symmetric, narrow, static = not flags["asym"], flags["narrow"], flags["static"]
        return cls(
            Int(int(element[3:])), granularity, size, symmetric, narrow, static, scale, float_zero=flags["float_zero"]
        )

    def group(self, cols: int) -> int:
        """Columns that share a scale in rows of `cols` columns; ShapeError if the group size does not divide them.

        >>> Scheme.parse("int4/g128").group(256), Scheme.parse("int4/channel").group(256)
        (128, 256)
        """
        if self.group_size is None:
            return cols
        if cols % self.group_size:
            fitting = [size for size in (256, 128, 64, 32, 16, 8) if cols % size == 0]
            sizes = " or ".join(f"g{size}" for size in fitting[:2])
            hint = f"use {sizes}, or a channel scheme" if fitting else "use a channel scheme"
            raise ShapeError("group_size", self.group_size, f"a divisor of {cols}", hint)
        return self.group_size

    def groups(self, cols: int) -> int:
        """Scales in a row of `cols` columns."""
        return cols // self.group(cols) if cols else 0

    def resolve(self, scale_dtype: ScaleDtype) -> Scheme:
        """The same scheme with "auto" scales made `scale_dtype`; a scheme that names its own keeps it.

        >>> str(Scheme.parse("int4/g128").resolve("bf16"))
        'int4/g128/bf16'
        """
        return replace(self, scale_dtype=scale_dtype) if self.scale_dtype == "auto" else self


def _granularity(text: str, part: str) -> tuple[Granularity, int | None]:
    """The second part of a scheme: a granularity, and the size where it is a group."""
    if re.fullmatch(r"g[1-9][0-9]{0,8}", part):
        return "group", int(part[1:])
    for name in GRANULARITIES:
        if part == name != "group":
            return name, None
    raise _wrong(text, part, 2, ["tensor", "channel", "token", "g<size>"], others=["g32", "g64", "g128"])


def _wrong(
    text: str, part: str, place: int, allowed: Sequence[str], why: str = "", others: Sequence[str] = ()
) -> SchemeError:
    """The error for one part that may not stand where it stands, with the nearest that may."""
    listed = f"{', '.join(allowed[:-1])} or {allowed[-1]}" if len(allowed) > 1 else "".join(allowed) or "nothing more"
    near = difflib.get_close_matches(part, [*allowed, *others], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "for example int4/g128/asym or int8/token"
    return SchemeError(f"scheme {text!r}", f"{why}{part!r} as part {place}", listed, hint)
