"""CodebookTensor: a weight whose codes stand for vectors of a codebook that is the same for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from subbyte import kernels
from subbyte.errors import SchemeError
from subbyte.schemes import E8p, Scheme
from subbyte.tensors.checks import check_array, check_finite
from subbyte.tensors.wide import pack_wide, unpack_wide

__all__ = ["CodebookTensor"]

DIM = 8


@dataclass(frozen=True, eq=False, slots=True)
class CodebookTensor:
    """A weight [O, I] in E8P codes of eight neighbouring columns: `w = scale * value`.

    scheme   its element is `E8p`, its granularity tensor
    shape    (O, I), I a multiple of 8
    words    [O, ceil(I * bits / 32)] i32: the codes of each row as a dense bit stream, 8 * bits bits each, as
             `kernels.codebook_gemm` reads them
    scale    [1, 1] f32, finite

    Arrays are kept, not copied, and never changed. Raises SchemeError, ShapeError, DtypeError, NotFiniteError.
    """

    scheme: Scheme
    shape: tuple[int, int]
    words: npt.NDArray[np.int32]
    scale: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if not isinstance(self.scheme.element, E8p):
            raise SchemeError("scheme of a codebook tensor", self.scheme, "an element e8p2, e8p3 or e8p4")
        rows, cols = self.shape
        if cols % DIM:
            raise SchemeError("columns", cols, f"a multiple of {DIM}", f"{self.scheme} rounds {DIM} at a time")
        check_array("words", self.words, np.int32, (rows, -(-cols * self.scheme.bits // 32)))
        check_array("scale", self.scale, np.float32, (1, 1))
        check_finite("scale", self.scale)

    @classmethod
    def from_codes(cls, codes: npt.NDArray[np.int32], scale: npt.NDArray[np.float32], scheme: Scheme) -> CodebookTensor:
        """Packs codes [O, I / 8] i32, as `kernels.ldlq` and `kernels.e8p_encode` give them."""
        rows, count = codes.shape
        return cls(scheme, (rows, count * DIM), pack_wide(codes, DIM * scheme.bits), scale)

    def codes(self) -> npt.NDArray[np.int32]:
        """[O, I / 8] i32, newly allocated."""
        return unpack_wide(self.words, DIM * self.scheme.bits, self.shape[1] // DIM)

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The weight that the codes stand for: [O, I] f32, newly allocated; each value is one rounded product."""
        codes, bits = self.codes(), self.scheme.bits
        values = kernels.e8p_decode(codes.astype(np.uint16) if bits == 2 else codes, bits)
        weight: npt.NDArray[np.float32] = values * self.scale
        return weight

    @property
    def nbytes(self) -> int:
        """Bytes of words and scale; the codebook is the same for all and stored nowhere."""
        return self.words.nbytes + self.scale.nbytes

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each weight; 0.0 for a tensor without any."""
        count = self.shape[0] * self.shape[1]
        return 8 * self.nbytes / count if count else 0.0
