"""What a weight of a scheme takes when it is stored, told from its shape alone."""

from __future__ import annotations

from typing import Literal

from subbyte.schemes.element import E8p, Power, Vectors
from subbyte.schemes.scheme import Scheme

__all__ = ["stored_bytes"]

WORD = 32
"""Bits of a word: rows of codes begin with a new one."""


def stored_bytes(scheme: Scheme, shape: tuple[int, int]) -> int:
    """Bytes of a weight [O, I]: what the tensors of `subbyte.tensors` give as `nbytes`, padding of the words included.

    What a solver may keep beside the codes of any scheme does not count: an index or order of the columns, rotations,
    outliers apart. Raises ShapeError (a group size that does not divide).

    >>> stored_bytes(Scheme.parse("int4/g128/f16"), (512, 256)) * 8 / (512 * 256)
    4.125
    """
    rows, cols = shape
    width = 2 if scheme.scale_dtype in ("f16", "bf16") else 4
    element = scheme.element
    if isinstance(element, Vectors):
        return _vectors(element, rows, cols, width)
    size = _words(rows, cols * scheme.bits)
    if isinstance(element, E8p):
        return size + 4
    if isinstance(element, Power):
        size += 2 * (rows if element.by_row else 1)
    size += _parameters("scale", scheme, shape, width)
    return size if scheme.symmetric else size + _parameters("zero", scheme, shape, width)


def _words(rows: int, bits: int) -> int:
    return 4 * rows * -(-bits // WORD)


def _parameters(part: Literal["scale", "zero"], scheme: Scheme, shape: tuple[int, int], width: int) -> int:
    """Bytes of the scales or zero points."""
    level, (rows, groups) = scheme.level(part), scheme.parameters(shape)
    if level is not None:
        return stored_bytes(level, (rows, groups) if scheme.by_input else (groups, rows))
    whole = part == "zero" and not scheme.float_zero
    return _words(1, rows * groups * scheme.bits) if whole else rows * groups * width


def _vectors(element: Vectors, rows: int, cols: int, width: int) -> int:
    """Bytes of codes, codebooks, outliers, scales and biases."""
    apart, _ = element.columns(cols)
    strips = -(-rows // element.dim)
    size = _words(strips, (cols - apart) * element.width)
    size += width * element.groups * element.dim * (element.count + element.residual)
    if element.outlier_count:
        size += _words(-(-rows // element.outlier_dim), apart * (element.outlier_count.bit_length() - 1))
        size += width * element.outlier_count * element.outlier_dim
    else:
        size += width * rows * apart
    return size + (2 * width * cols if element.norm else 0)
