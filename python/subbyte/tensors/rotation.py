"""Rotation: an orthogonal transform of vectors, told by a few numbers, and a diagonal before it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from subbyte import kernels
from subbyte.errors import DtypeError, NotFiniteError, RangeError, ShapeError

__all__ = ["Kronecker", "Rotation", "turn"]

Kind = Literal["hadamard", "kronecker"]


class Kronecker(NamedTuple):
    """x -> y: `x[:, before]`, seen as p x q, times `left` [p, p] along p and `right` [q, q] along q, then `[:, after]`.

    Arrays of NumPy, or tensors of torch.
    """

    before: Any
    left: Any
    right: Any
    after: Any


def turn(x: Any, steps: Kronecker | None, back: bool = False) -> Any:
    """Rows x [T, n] f32 through a Kronecker product, or without one the Hadamard transform (`back`: transposed)."""
    if steps is None:
        return kernels.hadamard(x, transpose=back)
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
             prime factors of n, q the others
    size     n
    seed     of "kronecker", 0 to 2^63 - 1
    vector   [n] f16, finite, none 0 (signs, scales); None: all 1

    Draws are raw bits of Philox, which no release of NumPy changes. Raises ShapeError, DtypeError, RangeError (seed, a
    size without Hadamard matrix, a vector with zeros), NotFiniteError.
    """

    kind: Kind
    size: int
    seed: int = 0
    vector: npt.NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
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

    def steps(self, back: bool = False) -> Kronecker | None:
        """What `turn` takes for Q, or for its transpose; None for "hadamard"."""
        if self.kind == "hadamard":
            return None
        before, left, right, after = steps = _drawn(self.size, self.seed)
        if not back:
            return steps
        left, right = np.ascontiguousarray(left.T), np.ascontiguousarray(right.T)
        return Kronecker(np.argsort(after), left, right, np.argsort(before))

    def forward(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Q x for every row of x [T, n], the vector left out."""
        return _rows(turn(np.ascontiguousarray(x, np.float32), self.steps()))

    def backward(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Q^T x, the inverse of `forward`."""
        return _rows(turn(np.ascontiguousarray(x, np.float32), self.steps(back=True), back=True))

    @property
    def nbytes(self) -> int:
        """Bytes that are stored: the seed of a Kronecker product, and the vector."""
        return (8 if self.kind == "kronecker" else 0) + (0 if self.vector is None else self.vector.nbytes)


def _rows(x: Any) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(x, np.float32)


def _halves(n: int) -> tuple[int, int]:
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
def _drawn(size: int, seed: int) -> Kronecker:
    """Kept for the few that a layer asks for again and again."""
    draw = _Draw(seed)
    p, q = _halves(size)
    before, after = draw.permutation(size), draw.permutation(size)
    return Kronecker(before, draw.orthogonal(p), draw.orthogonal(q), after)


class _Draw:
    """Permutations and rotations from one stream of raw bits."""

    def __init__(self, seed: int) -> None:
        self.bits = np.random.Philox(key=seed)

    def permutation(self, n: int) -> npt.NDArray[np.int64]:
        return np.argsort(self.bits.random_raw(n), kind="stable")

    def orthogonal(self, n: int) -> npt.NDArray[np.float32]:
        """Haar-distributed in SO(n): the QR factor of a Gaussian matrix with the signs that make it unique."""
        uniform = ((self.bits.random_raw(2 * n * n) >> np.uint64(11)) + 0.5) * 2.0**-53
        radius, angle = np.sqrt(-2 * np.log(uniform[: n * n])), 2 * np.pi * uniform[n * n :]
        q, r = np.linalg.qr((radius * np.cos(angle)).reshape(n, n))
        q *= np.sign(np.diagonal(r))
        if np.linalg.det(q) < 0:
            q[:, 0] *= -1
        return q.astype(np.float32)
