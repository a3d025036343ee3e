"""Scheme: element format + granularity + symmetry + dtype of the scales, complete, hashable, one string.

    scheme      = element "/" granularity ["/by_input"] ["/asym" ["/float_zero"]] ["/narrow"] ["/static"] ["/" levels]
                  ["/" scale]
    element     = "int1" ... "int8" | "power2" ... "power8" ["r"] | "nf4" | "e8p2" | "e8p3" | "e8p4" | vectors
                                                                all but integers without flags, from e8p2 on per tensor
    vectors     = "v" dim "k" count ["r" count] ["c" groups] ["o" percent ["v" dim "k" count]] ["n"]
    granularity = "tensor" | "channel" | "token" | "g" size        size: input columns that share a scale
    by_input                                                    groups and channels run along the outputs instead
    levels      = ["s" bits] ["z" bits] "r" rows                   "s3z3r16": scales and zero points of 3 bits each,
                                                                   whose grids serve 16 neighbouring rows
    scale       = "f32" | "f16" | "bf16"                           left out: the model's dtype ("auto")

A code c of a group with scale s and zero point z means s * (c - z); symmetric schemes have z = 2^(bits - 1) and store
none. Zero points are codes, or with float_zero floats in the scales' dtype. With levels, scales or float zero points
are quantized themselves: as a weight of the scheme that `Scheme.level` gives. A part left out is the default, so every
scheme has exactly one spelling, and `Scheme.parse(str(s)) == s`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.errors import SchemeError, ShapeError
from subbyte.schemes.element import TABLES, Element, Int, Power, Table, Vectors, parse_element

__all__ = ["GRANULARITIES", "SCALE_DTYPES", "Granularity", "Levels", "ScaleDtype", "Scheme"]

Floats = NDArray[np.float32]
Granularity = Literal["tensor", "channel", "group", "token"]
ScaleDtype = Literal["auto", "f32", "f16", "bf16"]
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)
SCALE_DTYPES: tuple[ScaleDtype, ...] = get_args(ScaleDtype)
FLAGS = ("by_input", "asym", "float_zero", "narrow", "static")
LEVELS = "s3z3r16"
"""An example of its part, for messages."""


@dataclass(frozen=True, slots=True)
class Levels:
    """A second level: scales, or zero points, that are quantized themselves, along the rows.

    scale, zero   bits of their codes, 1 to 8; None: they are floats. One of the two is given
    run           neighbouring rows whose scales (zero points) of one group of columns share a grid of the second level

    >>> str(Levels(scale=3, zero=3, run=16))
    's3z3r16'
    """

    scale: int | None
    zero: int | None
    run: int

    def __post_init__(self) -> None:
        for name, bits in (("scale", self.scale), ("zero", self.zero)):
            if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8):
                raise SchemeError(f"levels.{name}", bits, "1 to 8 bits, or None")
        if self.scale is None and self.zero is None:
            raise SchemeError("levels", "neither scales nor zero points", "one of them at least", f"as in {LEVELS}")
        if isinstance(self.run, bool) or not isinstance(self.run, int) or self.run < 1:
            raise SchemeError("levels.run", self.run, "a positive number of rows")

    def __str__(self) -> str:
        scale = "" if self.scale is None else f"s{self.scale}"
        return f"{scale}{'' if self.zero is None else f'z{self.zero}'}r{self.run}"

    @classmethod
    def parse(cls, text: str) -> Levels | None:
        """The inverse of `str`; None for what is none."""
        found = re.fullmatch(r"(?:s([1-8]))?(?:z([1-8]))?r([1-9][0-9]{0,8})", text)
        if found is None or found[1] is found[2] is None:
            return None
        scale, zero = (None if bits is None else int(bits) for bits in found.group(1, 2))
        return cls(scale, zero, int(found[3]))


@dataclass(frozen=True, slots=True)
class Scheme:
    """How numbers become codes.

    element       what one code can be: `Int(bits)`, `Power(bits)`, `Table(name)`; for eight weights together
                  `E8p(bits)`, for others `Vectors`
    granularity   which elements share a scale (and a zero point): the whole tensor, a channel (one output row of a
                  weight), a group of `group_size` neighbouring input columns of a row, or a token (one activation row,
                  whose scale is found while running)
    symmetric     the zero point is the middle code and is not stored
    float_zero    asymmetric weights: the zero point is a float of the scale's dtype, not a code
    narrow        symmetric codes leave out the lowest one: -127 to 127, scale max|x| / 127, in place of -128 to 127,
                  scale max|x| / 127.5 (at 8 bits)
    static        activations: one scale fixed by calibration, in place of one found while running
    levels        weights: scales or float zero points that are quantized themselves; the scale dtype is then that
                  of the second level
    by_input      weights: channels and groups run along the outputs, inside one input column: a channel is a column, a
                  group `group_size` neighbouring rows of it
    scale_dtype   what the scales are rounded to before the codes are chosen; "auto" is the dtype of the model

    Raises SchemeError for a combination that means nothing.

    >>> Scheme.parse("int4/g128/asym").group_size
    128
    >>> str(Scheme(Int(8), "token"))
    'int8/token'
    """

    element: Element
    granularity: Granularity
    group_size: int | None = None
    symmetric: bool = True
    narrow: bool = False
    static: bool = False
    scale_dtype: ScaleDtype = "auto"
    float_zero: bool = False
    levels: Levels | None = None
    by_input: bool = False

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
        if self.by_input and self.granularity not in ("channel", "group"):
            hint = "for example int4/g128/by_input/asym"
            raise SchemeError("by_input", str(replace(self, by_input=False)), "channels or groups of a weight", hint)
        if self.levels is not None and (self.granularity not in ("channel", "group") or self.static):
            hint = f"for example int4/g16/asym/float_zero/{LEVELS}"
            raise SchemeError("levels", str(replace(self, levels=None)), "a weight with a scale for each row", hint)
        if self.levels is not None and self.levels.zero is not None and not self.float_zero:
            hint = "whole zero points are codes already: leave z out, or write asym/float_zero"
            raise SchemeError("levels", str(self.levels), "zero points that are floats", hint)
        if not isinstance(self.element, Int):
            allowed = ("tensor", "channel", "group") if isinstance(self.element, Power | Table) else ("tensor",)
            plain = self.symmetric and not (self.narrow or self.static or self.levels or self.by_input)
            if self.granularity not in allowed or not plain:
                given = f"{self.granularity}, with flags or levels" if not plain else self.granularity
                hint = f"write {self.element}/{allowed[-1] if len(allowed) == 1 else 'g64'}"
                raise SchemeError(f"scheme of {self.element}", given, " | ".join(allowed), hint)
        if self.narrow and self.bits == 1:
            raise SchemeError("narrow", "a 1-bit scheme", "2 bits or more", "a narrow 1-bit code has one value only")

    @property
    def bits(self) -> int:
        """Bits of one weight's code, or its share of one, rounded up."""
        return self.element.bits

    @property
    def rate(self) -> float:
        """The same, not rounded.

        >>> Scheme.parse("v2k128/tensor").rate, Scheme.parse("int4/g128").rate
        (3.5, 4.0)
        """
        element = self.element
        return element.width / element.dim if isinstance(element, Vectors) else float(element.bits)

    def __str__(self) -> str:
        where = f"g{self.group_size}" if self.granularity == "group" else self.granularity
        given = (self.by_input, not self.symmetric, self.float_zero, self.narrow, self.static)
        flags = [name for name, on in zip(FLAGS, given, strict=True) if on]
        flags += [] if self.levels is None else [str(self.levels)]
        scale = [] if self.scale_dtype == "auto" else [self.scale_dtype]
        return "/".join([str(self.element), where, *flags, *scale])

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Reads the one-string form; SchemeError names the part that is wrong, what may stand there, and the nearest.

        >>> Scheme.parse("int4/g128/asmy")
        Traceback (most recent call last):
            ...
        subbyte.errors.SchemeError: scheme 'int4/g128/asmy': given 'asmy' as part 3, expected by_input, asym, \
float_zero, narrow, static, s3z3r16, f32, f16 or bf16; did you mean 'asym'?
        """
        if not isinstance(text, str):
            raise SchemeError("scheme", f"{type(text).__name__} {text!r}", "a string such as int4/g128/asym")
        first, *parts = text.split("/")
        element = parse_element(first)
        if element is None:
            others = ["e8p2", "e8p3", "e8p4", "v6k4096", "v8k65536r256"]
            others += [*(f"power{bits}" for bits in range(2, 9)), *TABLES]
            raise _wrong(text, first, 1, [f"int{bits}" for bits in range(1, 9)], others=others)
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
        levels: Levels | None = None
        allowed = [*FLAGS, LEVELS, *SCALE_DTYPES[1:]]
        for place, part in enumerate(parts[1:], start=3):
            found = Levels.parse(part)
            if (part if found is None else LEVELS) not in allowed:
                out_of_order = part in FLAGS or part in SCALE_DTYPES[1:] or found is not None
                raise _wrong(text, part, place, allowed, "out of order or twice: " if out_of_order else "")
            if found is not None:
                levels, allowed = found, allowed[allowed.index(LEVELS) + 1 :]
            elif part in flags:
                flags[part] = True
                allowed = allowed[allowed.index(part) + 1 :]
            else:
                scale, allowed = part, []  # type: ignore[assignment]
        symmetric, narrow, static = not flags["asym"], flags["narrow"], flags["static"]
        rest = (symmetric, narrow, static, scale, flags["float_zero"], levels, flags["by_input"])
        return cls(element, granularity, size, *rest)

    def group(self, cols: int) -> int:
        """Columns that share a scale in rows of `cols` columns; ShapeError if the group size does not divide them.

        With `by_input`, rows that share one in columns of `cols` rows.

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

    def along(self, shape: tuple[int, int]) -> int:
        """How long the rows [I], or with `by_input` the columns [O], of a weight [O, I] are, which groups cut."""
        return shape[0] if self.by_input else shape[1]

    def refuse_by_input(self, what: str) -> None:
        """SchemeError with `by_input`, of what knows groups of input columns alone."""
        if self.by_input:
            raise SchemeError(f"scheme for {what}", self, "groups of input columns", "leave by_input out")

    def parameters(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The shape of the scales of a weight [O, I]: [O, G], with `by_input` [G, I], and [1, 1] for a tensor.

        >>> Scheme.parse("int4/g128").parameters((512, 256)), Scheme.parse("int4/g128/by_input").parameters((512, 256))
        ((512, 2), (4, 256))
        """
        if self.granularity == "tensor":
            return 1, 1
        groups = self.groups(self.along(shape))
        return (groups, shape[1]) if self.by_input else (shape[0], groups)

    def level(self, part: Literal["scale", "zero"]) -> Scheme | None:
        """The scheme of the scales, or zero points, as a weight [G, O]: groups as rows, runs of rows as groups.

        With `by_input` that weight is [G, I], and runs are neighbouring columns.

        None where they are not quantized.

        >>> str(Scheme.parse("int4/g16/asym/float_zero/s3z3r16/f16").level("scale"))
        'int3/g16/asym/float_zero/f16'
        """
        bits = None if self.levels is None else self.levels.scale if part == "scale" else self.levels.zero
        if bits is None or self.levels is None:
            return None
        run, dtype = self.levels.run, self.scale_dtype
        return Scheme(Int(bits), "group", run, symmetric=False, scale_dtype=dtype, float_zero=True)

    def held(self, values: Floats) -> Floats:
        """Scales, or zero points that are floats, f32, after a round trip through the scale dtype."""
        if self.scale_dtype in ("auto", "f32"):
            return values
        held: Floats = kernels.decode_minifloat(kernels.encode_minifloat(values, self.scale_dtype), self.scale_dtype)
        return held

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
