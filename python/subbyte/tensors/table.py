"""TableTensor: a weight whose codes stand for the values of a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from subbyte import kernels
from subbyte.errors import RangeError, SchemeError
from subbyte.schemes import EXPONENTS, Power, Scheme, Table
from subbyte.tensors.checks import check_array, check_finite

__all__ = ["TableTensor"]


@dataclass(frozen=True, eq=False, slots=True)
class TableTensor:
    """A weight [O, I] as codes of a table: `w[o, i] ~ scale[o, g] * table[code[o, i]]`, g the group of column i.

    scheme    its element is `Power` or `Table`
    shape     (O, I)
    words     [O, ceil(I * bits / 32)] i32, the codes of each row in the dense layout (docs/layouts.md)
    scale     [O, G] f32, G groups of neighbouring columns; [1, 1] where the granularity is tensor. Finite, and values
              that the scheme's scale dtype can hold
    exponent  [1] f16, of an element `Power`, or [O] if it is `by_row`, within `schemes.EXPONENTS`; None of others

    Arrays are kept, not copied, and never changed. Raises SchemeError, ShapeError, DtypeError, RangeError (exponent),
    NotFiniteError (scale).
    """

    scheme: Scheme
    shape: tuple[int, int]
    words: npt.NDArray[np.int32]
    scale: npt.NDArray[np.float32]
    exponent: npt.NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        element, (rows, cols) = _element(self.scheme), self.shape
        check_array("words", self.words, np.int32, (rows, -(-cols * self.scheme.bits // 32)))
        check_array("scale", self.scale, np.float32, self.scheme.parameters(self.shape))
        check_finite("scale", self.scale)
        if not np.array_equal(self.scheme.held(self.scale), self.scale):
            raise SchemeError("scale", f"values that {self.scheme.scale_dtype} cannot hold", f"scales of {self.scheme}")
        if (self.exponent is None) != isinstance(element, Table):
            given = "none" if self.exponent is None else "an exponent"
            raise SchemeError("exponent", given, f"exponents exactly where the element is a power, not {element}")
        if isinstance(element, Power) and self.exponent is not None:
            check_array("exponent", self.exponent, np.float16, (rows if element.by_row else 1,))
            least, most = EXPONENTS
            wrong = ~((self.exponent >= least) & (self.exponent <= most))
            if wrong.any():
                raise RangeError("exponent", self.exponent[wrong][0], f"{least:g} to {most:g}")

    @classmethod
    def nearest(
        cls,
        weight: npt.NDArray[np.float32],
        scale: npt.NDArray[np.float32],
        scheme: Scheme,
        exponent: npt.NDArray[np.float16] | None = None,
    ) -> TableTensor:
        """`weight` [O, I] on a given grid: by the nearest values of a `Table`, of a `Power` by the nearest powers."""
        rows, bounds = _by_row(scale, len(weight)), _element(scheme).bounds(exponent)
        codes = kernels.quantize_table(weight, rows, bounds, group=scheme.group(weight.shape[1]))
        return cls.from_codes(codes, scale, scheme, exponent)

    @classmethod
    def from_codes(
        cls,
        codes: npt.NDArray[np.uint8],
        scale: npt.NDArray[np.float32],
        scheme: Scheme,
        exponent: npt.NDArray[np.float16] | None = None,
    ) -> TableTensor:
        """Packs codes [O, I] u8, one a byte, 0 to 2^bits - 1 (RangeError beyond); the rest as in the class."""
        rows, cols = codes.shape
        return cls(scheme, (rows, cols), kernels.pack(codes, scheme.bits), scale, exponent)

    def codes(self) -> npt.NDArray[np.uint8]:
        """One code a byte: [O, I] u8, newly allocated."""
        codes: npt.NDArray[np.uint8] = kernels.unpack(self.words, self.scheme.bits, self.shape[1])
        return codes

    def table(self) -> npt.NDArray[np.float32]:
        """What codes stand for: [1, 2^bits] f32, or [O, 2^bits] where rows have exponents of their own."""
        return _element(self.scheme).values(self.exponent)

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The weight that the codes stand for: [O, I] f32, newly allocated; each value is one rounded product."""
        scale, group = _by_row(self.scale, self.shape[0]), self.scheme.group(self.shape[1])
        weight: npt.NDArray[np.float32] = kernels.dequantize_table(self.codes(), scale, self.table(), group=group)
        return weight

    @property
    def nbytes(self) -> int:
        """Bytes of words, of scales in the scheme's scale dtype ("auto" counts as f32), and of exponents."""
        width = 2 if self.scheme.scale_dtype in ("f16", "bf16") else 4
        exponent = 0 if self.exponent is None else self.exponent.nbytes
        return self.words.nbytes + self.scale.size * width + exponent

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each weight; 0.0 for a tensor without any."""
        count = self.shape[0] * self.shape[1]
        return 8 * self.nbytes / count if count else 0.0


def _element(scheme: Scheme) -> Power | Table:
    if not isinstance(scheme.element, Power | Table):
        raise SchemeError("scheme of a table tensor", scheme, "an element with a table", "for example nf4/g64")
    return scheme.element


def _by_row(scale: npt.NDArray[np.float32], rows: int) -> npt.NDArray[np.float32]:
    """[O, G] of scales, also where there is one for the whole tensor."""
    return scale if len(scale) == rows else np.ascontiguousarray(np.broadcast_to(scale, (rows, scale.shape[1])))
