"""VectorTensor: a weight in codes of vectors along the outputs, whose codebooks are part of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from subbyte.errors import RangeError, SchemeError, ShapeError
from subbyte.schemes import Scheme, Vectors
from subbyte.tensors.checks import check_array, check_finite
from subbyte.tensors.wide import pack_wide, unpack_wide

__all__ = ["Coded", "VectorTensor"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False, slots=True)
class Coded:
    """Columns [O, C] in codes: the vector of v outputs of a column is a codeword, plus one of a second stage.

    words     [ceil(O / v), ceil(C * (b + r) / 32)] i32: the codes of each strip of v outputs as one dense bit stream,
              b bits of the codeword's number and r of that of the residual, as `kernels.codebook_gemm` reads them
    codebook  [G, 2^b, v] f32: codewords of G groups of C / G neighbouring columns
    residual  [G, 2^r, v] f32, or None
    """

    words: npt.NDArray[np.int32]
    codebook: Floats
    residual: Floats | None = None

    @classmethod
    def of(cls, codes: npt.NDArray[np.int32], codebook: Floats, residual: Floats | None = None) -> Coded:
        """Packs codes [ceil(O / v), C] i32, as `kernels.gptq_codebook` gives them."""
        return cls(pack_wide(codes, sum(_bits(codebook, residual))), codebook, residual)

    def codes(self, columns: int) -> npt.NDArray[np.int32]:
        """[ceil(O / v), C] i32, newly allocated."""
        return unpack_wide(self.words, sum(_bits(self.codebook, self.residual)), columns)

    def stages(self, columns: int) -> list[npt.NDArray[np.intp]]:
        """For each stage the row of its codewords, all groups in one, that each code means: [ceil(O / v), C]."""
        low, _ = _bits(self.codebook, self.residual)
        codes = self.codes(columns).view(np.uint32).astype(np.intp)
        group = np.arange(columns) // max(columns // len(self.codebook), 1)
        found = [(codes & ((1 << low) - 1)) + group * self.codebook.shape[1]]
        return found if self.residual is None else [*found, (codes >> low) + group * self.residual.shape[1]]

    def values(self, outputs: int, columns: int) -> Floats:
        """[O, C] f32, newly allocated; both stages are added up with one rounding."""
        books = [book for book in (self.codebook, self.residual) if book is not None]
        dim = self.codebook.shape[2]
        vectors = sum(b.reshape(-1, dim)[rows] for b, rows in zip(books, self.stages(columns), strict=True))
        return np.ascontiguousarray(np.transpose(vectors, (0, 2, 1)).reshape(-1, columns)[:outputs])

    def check(self, what: str, shape: tuple[int, int], dim: int, count: int, residual: int, groups: int) -> None:
        """DtypeError, ShapeError, NotFiniteError unless everything is as a scheme says of these columns [O, C]."""
        check_array(f"{what} codebook", self.codebook, np.float32, (groups, count, dim))
        check_finite(f"{what} codebook", self.codebook.reshape(-1, dim))
        if (self.residual is None) != (residual == 0):
            raise ShapeError(f"{what} residual", self.residual is not None, f"{residual} codewords")
        if self.residual is not None:
            check_array(f"{what} residual", self.residual, np.float32, (groups, residual, dim))
            check_finite(f"{what} residual", self.residual.reshape(-1, dim))
        width = sum(_bits(self.codebook, self.residual))
        check_array(f"{what} words", self.words, np.int32, (-(-shape[0] // dim), -(-shape[1] * width // 32)))


def _bits(codebook: Floats, residual: Floats | None) -> tuple[int, int]:
    """Bits of the codes of both stages."""
    return (codebook.shape[1] - 1).bit_length(), 0 if residual is None else (residual.shape[1] - 1).bit_length()


@dataclass(frozen=True, eq=False, slots=True)
class VectorTensor:
    """A weight [O, I] in vectors of codebooks: `w[o, i] = scale[i] * value[o, place of i] + bias[i]`.

    scheme    its element is `Vectors`; codebooks, floats, scales and biases are what its scale dtype can hold
    shape     (O, I)
    main      all columns but the outliers
    outliers  the columns before them: in codes of their own, or as floats [O, n] f32; None: there are none
    order     [I] i32, a permutation: the input that each place, outliers first, belongs to; None: that of its number
    scale, bias  [I] f32, by inputs: exactly with `norm`

    Arrays are kept, not copied, and never changed. Raises SchemeError, ShapeError, DtypeError, RangeError (order),
    NotFiniteError.
    """

    scheme: Scheme
    shape: tuple[int, int]
    main: Coded
    outliers: Coded | Floats | None = None
    order: npt.NDArray[np.int32] | None = None
    scale: Floats | None = None
    bias: Floats | None = None

    def __post_init__(self) -> None:
        element, (rows, cols) = self.element, self.shape
        apart, _ = element.columns(cols)
        counts = (element.dim, element.count, element.residual, element.groups)
        self.main.check("main", (rows, cols - apart), *counts)
        if (self.outliers is None) != (apart == 0):
            raise ShapeError("outliers", "columns apart" if self.outliers is not None else "none", f"{apart} columns")
        if isinstance(self.outliers, Coded) != (apart > 0 and element.outlier_count > 0):
            raise SchemeError("outliers", type(self.outliers).__name__, f"what {self.scheme} says: floats, or codes")
        if isinstance(self.outliers, Coded):
            self.outliers.check("outliers", (rows, apart), element.outlier_dim, element.outlier_count, 0, 1)
        elif self.outliers is not None:
            check_array("outliers", self.outliers, np.float32, (rows, apart))
            check_finite("outliers", self.outliers)
        if self.order is not None:
            check_array("order", self.order, np.int32, (cols,))
            if not np.array_equal(np.sort(self.order), np.arange(cols)):
                raise RangeError("order", "numbers that come twice or are no column", f"each of 0 to {cols - 1} once")
        for name, values in (("scale", self.scale), ("bias", self.bias)):
            if (values is None) == element.norm:
                raise SchemeError(name, values is not None, f"what {self.scheme} says", "n: with scale and bias")
            if values is not None:
                check_array(name, values, np.float32, (cols,))
                check_finite(name, values.reshape(1, -1))
        for name, values in self.floats().items():
            if not np.array_equal(self.scheme.held(values.reshape(1, -1)), values.reshape(1, -1)):
                raise SchemeError(
                    name, f"values that {self.scheme.scale_dtype} cannot hold", f"values of {self.scheme}"
                )

    @property
    def element(self) -> Vectors:
        """What the scheme says of the codebooks; SchemeError where it has none, or none of a weight."""
        if not isinstance(self.scheme.element, Vectors):
            raise SchemeError("scheme of a vector tensor", self.scheme, "vectors, such as v6k4096/tensor")
        return self.scheme.element

    def floats(self) -> dict[str, Floats]:
        """By name, what is stored in the scale dtype."""
        apart = self.outliers
        found = {
            "codebook": self.main.codebook,
            "residual": self.main.residual,
            "outlier_codebook": apart.codebook if isinstance(apart, Coded) else None,
            "outlier_values": None if isinstance(apart, Coded) else apart,
            "scale": self.scale,
            "bias": self.bias,
        }
        return {name: values for name, values in found.items() if values is not None}

    def refitted(self, floats: dict[str, Floats]) -> VectorTensor:
        """The same codes with other values of some of `floats()`, rounded to what is stored."""
        held = self.scheme.held
        at = self.floats() | {name: held(v.reshape(1, -1)).reshape(v.shape) for name, v in floats.items()}
        apart = self.outliers
        if isinstance(apart, Coded):
            apart = replace(apart, codebook=at["outlier_codebook"])
        main = replace(self.main, codebook=at["codebook"], residual=at.get("residual"))
        return replace(self, main=main, outliers=apart, scale=at.get("scale"), bias=at.get("bias"))

    def placed(self) -> Floats:
        """The values of all places, outliers first, before scale and bias: [O, I] f32, newly allocated."""
        rows, cols = self.shape
        apart, _ = self.element.columns(cols)
        main = self.main.values(rows, cols - apart)
        if self.outliers is None:
            return main
        first = self.outliers.values(rows, apart) if isinstance(self.outliers, Coded) else self.outliers
        return np.concatenate([first, main], axis=1)

    def dequantize(self) -> Floats:
        """The weight that the codes stand for: [O, I] f32, newly allocated."""
        weight = self.placed()
        if self.order is not None:
            weight = np.ascontiguousarray(weight[:, np.argsort(self.order)])
        return weight if self.scale is None or self.bias is None else weight * self.scale + self.bias

    @property
    def nbytes(self) -> int:
        """Bytes that are stored: codes, codebooks, floats, scales and biases, and two for each place of an order (four
        beyond 65536)."""
        width = 2 if self.scheme.scale_dtype in ("f16", "bf16") else 4
        size = self.main.words.nbytes + width * sum(values.size for values in self.floats().values())
        size += self.outliers.words.nbytes if isinstance(self.outliers, Coded) else 0
        return size + (0 if self.order is None else self.order.size * (2 if self.shape[1] <= 1 << 16 else 4))

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each weight; 0.0 for a tensor without any."""
        count = self.shape[0] * self.shape[1]
        return 8 * self.nbytes / count if count else 0.0
