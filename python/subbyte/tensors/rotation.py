"""Rotation: an orthogonal transform of vectors, told by a few numbers, and a diagonal before it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from subbyte import kernels
from subbyte.errors import DtypeError, NotFiniteError, RangeError, ShapeError, UnknownNameError

__all__ = ["Butterfly", "Rotation", "halves", "turn"]

Kind = Literal["hadamard", "kronecker", "block"]


class Butterfly(NamedTuple):
    """x -> y: `x[:, before]`, seen as p x q, times `left` along p, times `right` along q, then `[:, after]`.

    One matrix for all, `left` [p, p] and `right` [q, q], or one for each of the others: `left` [q, p, p] for the
    columns, `right` [p, q, q] for the rows. Arrays of NumPy, or tensors of torch.
    """

    before: Any
    left: Any
    right: Any
    after: Any


def turn(x: Any, steps: Butterfly | None, back: bool = False) -> Any:
    """Rows x [T, n] f32 through a butterfly, or without one the Hadamard transform (`back`: transposed)."""
    if steps is None:
        return kernels.hadamard(x, transpose=back)
    if steps.left.ndim == 3:
        q, p = steps.left.shape[:2]
        columns = steps.left @ x[:, steps.before].reshape(-1, p, q).swapaxes(0, 2)  # [q, p, T]
        rows = steps.right @ columns.swapaxes(0, 1)  # [p, q, T]
        return rows.swapaxes(0, 2).swapaxes(1, 2).reshape(-1, p * q)[:, steps.after]
    p, q = len(steps.left), len(steps.right)
    # Two large products: thousands of small ones would take many times as long.
    along_q = x[:, steps.before].reshape(-1, q) @ steps.right.T
    along_p = along_q.reshape(-1, p, q).swapaxes(1, 2).reshape(-1, p) @ steps.left.T
    return along_p.reshape(-1, q, p).swapaxes(1, 2).reshape(-1, p * q)[:, steps.after]


@dataclass(frozen=True, eq=False, slots=True)
class Rotation:
    """z = Q (vector * x) for x [n], with Q orthogonal.

    kind     "hadamard": the orthonormal matrix of `kernels.hadamard`; "kronecker": of two Haar-distributed rotations
             p x p and q x q between two permutations, all drawn by `seed`; p takes the first, third, ... of the rising
             prime factors of n, q the others; "block": the same with q rotations p x p, one for each column of p x q,
             and then p rotations q x q, one for each row
    size     n
    seed     of "kronecker" and "block", 0 to 2^63 - 1
    vector   [n] f16, finite, none 0 (signs, scales); None: all 1

    Draws are raw bits of Philox, which no release of NumPy changes. Raises ShapeError, DtypeError, RangeError (seed, a
    size that `kernels.hadamard` does not take, a vector with zeros), UnknownNameError (kind), NotFiniteError.
    """

    kind: Kind
    size: int
    seed: int = 0
    vector: npt.NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UnknownNameError("kind of a rotation", self.kind, " or ".join(get_args(Kind)))
        if not 0 <= self.seed < 1 << 63:
            raise RangeError("seed of a rotation", self.seed, "0 to 2^63 - 1")
        if self.kind == "hadamard":
            kernels.hadamard(np.zeros((0, self.size), np.float32))  # refuses sizes without a matrix
        if self.vector is None:
            return
        if self.vector.dtype != np.float16:
            raise DtypeError("vector of a rotation", self.vector.dtype, "float16")
        if self.vector.shape != (self.size,):
            raise ShapeError("vector of a rotation", list(self.vector.shape), [self.size])
        if not np.isfinite(self.vector).all():
            raise NotFiniteError("vector of a rotation", "NaN or infinity", "finite numbers")
        if (self.vector == 0).any():
            raise RangeError("vector of a rotation", "zeros", "other numbers", "what they multiply would be lost")

    def scales(self) -> npt.NDArray[np.float32]:
        """The vector [n] f32."""
        return np.ones(self.size, np.float32) if self.vector is None else self.vector.astype(np.float32)

    def steps(self, back: bool = False) -> Butterfly | None:
        """What `turn` takes for Q, or for its transpose; None for "hadamard"."""
        if self.kind == "hadamard":
            return None
        before, left, right, after = steps = _drawn(self.size, self.seed, self.kind == "block")
        if not back:
            return steps
        before, after = np.argsort(after), np.argsort(before)
        left, right = (np.ascontiguousarray(one.swapaxes(-1, -2)) for one in (left, right))
        if self.kind == "block":
            # The last to act is undone first: p x q is seen as q x p.
            across = np.arange(self.size).reshape(right.shape[:2]).T.ravel()
            return Butterfly(before[across], right, left, np.argsort(across)[after])
        return Butterfly(before, left, right, after)

    def forward(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Q x for every row of x [T, n], the vector left out."""
        return _rows(turn(np.ascontiguousarray(x, np.float32), self.steps()))

    def backward(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Q^T x, the inverse of `forward`."""
        return _rows(turn(np.ascontiguousarray(x, np.float32), self.steps(back=True), back=True))

    @property
    def nbytes(self) -> int:
        """Bytes that are stored: the seed of a butterfly, with what tells "block", and the vector."""
        told = {"hadamard": 0, "kronecker": 8, "block": 16}[self.kind]
        return told + (0 if self.vector is None else self.vector.nbytes)


def halves(vector: npt.NDArray[np.floating]) -> npt.NDArray[np.float16]:
    """A vector as a rotation stores it: in f16 within its normal range, so that none of it is 0."""
    size = np.clip(np.abs(vector), 2.0**-14, 65504.0)
    found: npt.NDArray[np.float16] = np.copysign(size, vector).astype(np.float16)
    return found


def _rows(x: Any) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(x, np.float32)


def _factors(n: int) -> tuple[int, int]:
    """p and q: the rising prime factors of n by turns."""
    found, rest, prime = [1, 1], n, 2
    turns = 0
    while rest > 1:
        if prime * prime > rest:
            prime = rest
        if rest % prime:
            prime += 1
            continue
        found[turns % 2] *= prime
        rest //= prime
        turns += 1
    return found[0], found[1]


@lru_cache(maxsize=4)
def _drawn(size: int, seed: int, block: bool) -> Butterfly:
    """Kept for the few that a layer asks for again and again."""
    draw = _Draw(seed)
    p, q = _factors(size)
    before, after = draw.permutation(size), draw.permutation(size)
    if block:
        return Butterfly(before, draw.orthogonal(q, p), draw.orthogonal(p, q), after)
    return Butterfly(before, draw.orthogonal(1, p)[0], draw.orthogonal(1, q)[0], after)


class _Draw:
    """Permutations and rotations from one stream of raw bits."""

    def __init__(self, seed: int) -> None:
        self.bits = np.random.Philox(key=seed)

    def permutation(self, n: int) -> npt.NDArray[np.int64]:
        return np.argsort(self.bits.random_raw(n), kind="stable")

    def orthogonal(self, count: int, n: int) -> npt.NDArray[np.float32]:
        """[count, n, n], Haar-distributed in SO(n): by uniform angles where n is 2.

        QR factors of Gaussian matrices, with the signs that make them unique.
        """
        uniform = ((self.bits.random_raw(count * 2 * n * n) >> np.uint64(11)) + 0.5) * 2.0**-53
        first, second = uniform.reshape(count, 2, n, n).swapaxes(0, 1)
        q, r = np.linalg.qr(np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second))
        q *= np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
        q[np.linalg.det(q) < 0, :, 0] *= -1
        return q.astype(np.float32)
