"""QuantizedTensor: codes, scales, zero points and the shape of the weight that they stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from subbyte import kernels
from subbyte.errors import RangeError, SchemeError, ShapeError
from subbyte.schemes import Int, Scheme
from subbyte.tensors.checks import check_array, check_finite

__all__ = ["QuantizedTensor"]

WORD = 32


@dataclass(frozen=True, eq=False, slots=True)
class QuantizedTensor:
    """A weight [O, I] as codes: `w[o, i] ~ scale[o, g] * (code[o, i] - zero[o, g])`, g the group of column i.

    With `scheme.by_input`, `w[o, i] ~ scale[g, i] * (code[o, i] - zero[g, i])`, g the group of row o.

    scheme   its granularity is tensor, channel or group
    shape    (O, I)
    words    [O, ceil(I * bits / 32)] i32, the codes of each row in the dense layout (docs/layouts.md)
    scale    [O, G] f32, G groups of neighbouring columns; [G, I], groups of neighbouring rows, by input; [1, 1] where
             the granularity is tensor. Every value is one that the scheme's scale dtype can hold
             With levels of scales: those as a QuantizedTensor of scheme `scheme.level`, [G, O] ([G, I] by input)
    zero     same shape, u8, 0 to 2^bits - 1, or f32 where the scheme has float zero points, of values that its scale
             dtype can hold; None where the scheme is symmetric (then it is 2^(bits - 1)). With levels of zero
             points: as the scales
    index    [I] i32, the group of each column, where groups are not neighbouring columns (GPTQ's act-order); every
             group has as many columns as the others. None: column i is in group i // group_size

    Arrays are kept, not copied, and never changed. Raises ShapeError, DtypeError, RangeError (zero points, index),
    NotFiniteError (scales), SchemeError (a scheme that no weight has, or scales that its scale dtype cannot hold).
    """

    scheme: Scheme
    shape: tuple[int, int]
    words: npt.NDArray[np.int32]
    scale: npt.NDArray[np.float32] | QuantizedTensor
    zero: npt.NDArray[Any] | QuantizedTensor | None = None
    index: npt.NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        scheme = self.scheme
        if scheme.granularity == "token" or scheme.static or not isinstance(scheme.element, Int):
            raise SchemeError(
                "scheme of a weight",
                scheme,
                "integers, granularity tensor, channel or group",
                f"write int{scheme.bits}/channel",
            )
        rows, cols = self.shape
        check_array("words", self.words, np.int32, (rows, -(-cols * scheme.bits // WORD)))
        parameters = scheme.parameters(self.shape)
        _check_level("scale", self.scale, scheme, parameters)
        if (self.zero is None) != scheme.symmetric:
            given = "no zero points" if self.zero is None else "zero points"
            raise SchemeError("zero", given, "zero points exactly where the scheme is asymmetric", f"scheme {scheme}")
        if self.zero is not None and scheme.float_zero:
            _check_level("zero", self.zero, scheme, parameters)
        elif self.zero is not None:
            check_array("zero", self.zero, np.uint8, parameters)
            zero = self.zeros()
            if zero is not None and zero.size and int(zero.max()) >= (1 << scheme.bits):
                raise RangeError("zero", int(zero.max()), f"0 to {(1 << scheme.bits) - 1}")
        if self.index is not None:
            self._check_index(self.index, cols)

    def _check_index(self, index: npt.NDArray[np.int32], cols: int) -> None:
        check_array("index", index, np.int32, (cols,))
        if self.scheme.granularity != "group" or self.scheme.by_input:
            hint = "other schemes have no groups of columns"
            raise SchemeError("index", f"an index with {self.scheme}", "a scheme with groups of columns", hint)
        groups, size = self.scheme.groups(cols), self.scheme.group(cols)
        if cols and (int(index.min()) < 0 or int(index.max()) >= groups):
            raise RangeError("index", f"{int(index.min())} to {int(index.max())}", f"groups 0 to {groups - 1}")
        counts = np.bincount(index, minlength=groups)
        if (counts != size).any():
            group = int(np.argmax(counts != size))
            raise ShapeError("index", f"{int(counts[group])} columns in group {group}", f"{size} in each")

    @classmethod
    def from_codes(
        cls,
        codes: npt.NDArray[np.uint8],
        scale: npt.NDArray[np.float32] | QuantizedTensor,
        zero: npt.NDArray[Any] | QuantizedTensor | None,
        scheme: Scheme,
        index: npt.NDArray[np.int32] | None = None,
    ) -> QuantizedTensor:
        """Packs codes [O, I] u8, one a byte, 0 to 2^bits - 1 (RangeError beyond); the rest as in the class.

        Zero points of a symmetric scheme may be given, as kernels return them, and must then all be the middle code.
        An index that says i // group_size, which is what none says, is dropped.
        """
        if not isinstance(codes, np.ndarray) or codes.ndim != 2:
            raise ShapeError("codes", getattr(codes, "shape", type(codes).__name__), "a NumPy array [O, I]")
        if scheme.symmetric and isinstance(zero, np.ndarray):
            if (zero != 1 << (scheme.bits - 1)).any():
                raise RangeError(
                    "zero", "other zero points", f"{1 << (scheme.bits - 1)} everywhere: {scheme} is symmetric"
                )
            zero = None
        rows, cols = codes.shape
        if index is not None and np.array_equal(index, np.arange(cols) // scheme.group(cols)):
            index = None
        return cls(scheme, (rows, cols), kernels.pack(codes, scheme.bits), scale, zero, index)

    @classmethod
    def transposed(cls, tensor: QuantizedTensor) -> QuantizedTensor:
        """W^T [I, O], rounded by rows, as the weight W [O, I] whose scheme is `by_input`: nothing else changes."""
        zero = tensor.zero
        return cls.from_codes(
            np.ascontiguousarray(tensor.codes().T),
            tensor.scale if isinstance(tensor.scale, QuantizedTensor) else np.ascontiguousarray(tensor.scale.T),
            zero if zero is None or isinstance(zero, QuantizedTensor) else np.ascontiguousarray(zero.T),
            replace(tensor.scheme, by_input=True),
        )

    def codes(self) -> npt.NDArray[np.uint8]:
        """One code a byte: [O, I] u8, newly allocated."""
        codes: npt.NDArray[np.uint8] = kernels.unpack(self.words, self.scheme.bits, self.shape[1])
        return codes

    def scales(self) -> npt.NDArray[np.float32]:
        """The scales, one for each group, f32: kept as they are, or decoded from their own codes."""
        return self._decoded(self.scale)

    def zeros(self) -> npt.NDArray[Any] | None:
        """The zero points, of the shape of the scales; None where the scheme is symmetric."""
        return None if self.zero is None else self._decoded(self.zero)

    def _decoded(self, values: npt.NDArray[Any] | QuantizedTensor) -> npt.NDArray[Any]:
        """Scales or zero points as one of each for each group; a second level lies with groups as rows."""
        if not isinstance(values, QuantizedTensor):
            return values
        decoded = values.dequantize()
        return decoded if self.scheme.by_input else np.ascontiguousarray(decoded.T)

    def floats(self) -> dict[str, npt.NDArray[np.float32]]:
        """By name, scales and zero points that are stored as floats."""
        parts = (("scale", self.scale), ("zero", self.zero))
        return {name: part for name, part in parts if isinstance(part, np.ndarray) and part.dtype == np.float32}

    def refitted(self, floats: dict[str, npt.NDArray[np.float32]]) -> QuantizedTensor:
        """The same codes with other values of some of `floats()`, rounded to what is stored."""
        held = {name: self.scheme.held(values) for name, values in floats.items()}
        return replace(self, scale=held.get("scale", self.scale), zero=held.get("zero", self.zero))

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The weight that the codes stand for: [O, I] f32, newly allocated; each value is one rounded product."""
        rows, cols = self.shape
        scale, zero = self.scales(), self.zeros()
        if zero is None:
            zero = np.full(scale.shape, 1 << (self.scheme.bits - 1), np.uint8)
        codes = self.codes()
        weight: npt.NDArray[np.float32]
        if self.scheme.granularity == "tensor":
            weight = kernels.dequantize_affine(codes.reshape(1, rows * cols), scale, zero)
            return weight.reshape(rows, cols)
        group = self.scheme.group(self.scheme.along(self.shape))
        if self.scheme.by_input:
            codes, scale, zero = (np.ascontiguousarray(array.T) for array in (codes, scale, zero))
            weight = kernels.dequantize_affine(codes, scale, zero, group=group)
            return np.ascontiguousarray(weight.T)
        if self.index is None:
            weight = kernels.dequantize_affine(codes, scale, zero, group=group)
            return weight
        # Sorted by group, columns of a group are neighbours, which is what the kernel reads.
        order = np.argsort(self.index, kind="stable")
        weight = np.empty(self.shape, np.float32)
        weight[:, order] = kernels.dequantize_affine(np.ascontiguousarray(codes[:, order]), scale, zero, group=group)
        return weight

    @property
    def nbytes(self) -> int:
        """Bytes that this tensor takes when stored, padding of the words included.

        Words as they are, scales in the scheme's scale dtype ("auto" counts as the f32 that it is held in), zero points
        in `bits` bits each, packed into whole words, or as scales where they are floats, and four bytes for each column
        of an index. What has a second level counts as the tensor that it is.
        """
        width = 2 if self.scheme.scale_dtype in ("f16", "bf16") else 4
        size = self.words.nbytes
        for part in (self.scale, self.zero):
            if isinstance(part, QuantizedTensor):
                size += part.nbytes
            elif part is not None and part.dtype == np.float32:
                size += part.size * width
            elif part is not None:
                size += -(-part.size * self.scheme.bits // WORD) * 4
        return size + (0 if self.index is None else self.index.nbytes)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits for each weight; 0.0 for a tensor without any."""
        count = self.shape[0] * self.shape[1]
        return 8 * self.nbytes / count if count else 0.0


def _check_level(what: Literal["scale", "zero"], given: object, scheme: Scheme, shape: tuple[int, int]) -> None:
    """Scales or zero points: floats, or the tensor of a second level, groups by rows."""
    level = scheme.level(what)
    if level is None:
        _check_floats(what, cast("npt.NDArray[Any]", given), scheme, shape)
    elif not isinstance(given, QuantizedTensor) or given.scheme != level:
        found = given.scheme if isinstance(given, QuantizedTensor) else type(given).__name__
        raise SchemeError(what, found, f"a QuantizedTensor of {level}", f"that is what {scheme} says")
    elif given.shape != (wanted := shape if scheme.by_input else shape[::-1]):
        raise ShapeError(what, list(given.shape), list(wanted))


def _check_floats(what: str, array: npt.NDArray[Any], scheme: Scheme, shape: tuple[int, ...]) -> None:
    """Scales, or zero points that are floats: finite, and what the scheme's scale dtype can hold."""
    check_array(what, array, np.float32, shape)
    check_finite(what, array)
    if not np.array_equal(scheme.held(array), array):
        hint = f"fit the {what}s with scale_dtype={scheme.scale_dtype!r}, so that the codes suit what is stored"
        raise SchemeError(what, f"values that {scheme.scale_dtype} cannot hold", f"{what}s of {scheme}", hint)
