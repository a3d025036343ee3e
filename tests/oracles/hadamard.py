"""The matrices by their definitions, in f64."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
from tests.oracles.case import Case

#: Coefficients modulo a prime, the constant one first.
Polynomial = tuple[int, ...]

#: First rows of Williamson's four circulants, by order, most significant bit first.
WILLIAMSON = {
    52: "14f2 11f8 1a65 1090",
    116: "192ef749 1ed1f8b7 1465fa62 1c650a63",
    124: "4e90c25c 4e90c25c 41d4cae0 7e2b351f",
    156: "7282619053 7898528647 73452128b3 46a0edc158",
    172: "467aecdd798 6fc29b650fd 7595e85ea6b 63d260192f1",
}
#: The prime behind each Paley matrix: of order q + 1, or, where q % 4 is 1, of order 2 (q + 1).
PRIMES = {12: 11, 20: 19, 28: 13, 36: 17, 44: 43, 60: 59, 76: 37, 84: 83, 108: 107, 140: 139, 148: 73, 200: 199}
#: The same of powers of primes, which come after all of those.
POWERS = {100: 49, 244: 243, 340: 169, 580: 289, 724: 361}
PALEY = PRIMES | POWERS
#: Odd parts of lengths without a Hadamard matrix, for which Hartley's stands in.
HARTLEY = [1, 3, 23, 59, 107]


@cache
def outer(order: int) -> np.ndarray:
    """[order, order] f64 of 1 and -1; for odd orders cos + sin of the angles i j / order of a turn, in f32."""
    if order % 2:
        angles = 2 * np.pi * np.outer(np.arange(order), np.arange(order)) / order
        return (np.cos(angles) + np.sin(angles)).astype(np.float32).astype(np.float64)
    if order in WILLIAMSON:
        size = order // 4
        rows = [[1 if bit == "1" else -1 for bit in f"{int(text, 16):0{size}b}"] for text in WILLIAMSON[order].split()]
        a, b, c, d = (np.array([np.roll(row, i) for i in range(size)], float) for row in rows)
        return np.block([[a, b, c, d], [-b, a, -d, c], [-c, d, a, -b], [-d, -c, b, a]])
    q = PALEY[order]
    elements, squares = field(q)
    p = prime_of(q)
    chi = np.array(
        [
            [
                0 if i == j else 1 if tuple((a - b) % p for a, b in zip(i, j, strict=True)) in squares else -1
                for j in elements
            ]
            for i in elements
        ],
        float,
    )
    ones = np.ones((q, 1))
    if q % 4 == 3:
        return np.eye(q + 1) + np.block([[np.zeros((1, 1)), -ones.T], [ones, chi]])
    s, unit = np.block([[np.zeros((1, 1)), ones.T], [ones, chi]]), np.eye(q + 1)
    return np.block([[s + unit, s - unit], [s - unit, -s - unit]])


def prime_of(q: int) -> int:
    """The least prime factor of q."""
    return next(p for p in range(2, q + 1) if q % p == 0)


@cache
def field(q: int) -> tuple[list[Polynomial], set[Polynomial]]:
    """The polynomials modulo a prime in the order of their numbers, and the squares among them.

    Multiplied modulo x^k - r, r the first polynomial with which x is a generator.
    """
    p = prime_of(q)
    k = round(math.log(q, p))
    elements = [tuple(number // p**place % p for place in range(k)) for number in range(q)]
    one = elements[1]

    def times(a: Polynomial, b: Polynomial, r: Polynomial) -> Polynomial:
        product = [0] * (2 * k - 1)
        for (i, x), (j, y) in itertools.product(enumerate(a), enumerate(b)):
            product[i + j] += x * y
        for high in range(2 * k - 2, k - 1, -1):
            for place in range(k):
                product[high - k + place] += product[high] * r[place]
        return tuple(x % p for x in product[:k])

    def power(a: Polynomial, exponent: int, r: Polynomial) -> Polynomial:
        half = one if exponent < 2 else power(a, exponent // 2, r)
        return times(times(half, half, r), a if exponent % 2 else one, r)

    def generates(r: Polynomial) -> bool:
        x = elements[p] if k > 1 else r
        divisors = [d for d in range(1, q - 1) if (q - 1) % d == 0]
        return power(x, q - 1, r) == one and all(power(x, d, r) != one for d in divisors)

    rest = next(r for r in elements[1:] if generates(r))
    return elements, {times(a, a, rest) for a in elements[1:]}


def order_of(n: int) -> int:
    """K, the order of the outer matrix; 1 for powers of two."""
    known = [*sorted([*WILLIAMSON, *PRIMES]), *sorted(POWERS), *HARTLEY]
    return next((k for k in known if n % k == 0 and (n // k).bit_count() == 1), 1)


@cache
def matrix(n: int) -> np.ndarray:
    """[n, n] f64: the outer matrix (for no power of two) by Sylvester's, (-1) ** (ones that i and j share)."""
    order = order_of(n)
    inner = np.array([[(-1) ** (i & j).bit_count() for j in range(n // order)] for i in range(n // order)], float)
    return np.kron(outer(order), inner) if order > 1 else inner


def hadamard(x: np.ndarray, scale: float | None = None, transpose: bool = False) -> np.ndarray:
    """scale * x H^T, or scale * x H, in the dtype of x."""
    n = x.shape[-1]
    factor = 1 / math.sqrt(n) if scale is None else scale
    rows = matrix(n) if transpose else matrix(n).T
    with np.errstate(over="ignore"):
        return (x.astype(np.float64) @ rows * np.float32(factor)).astype(x.dtype)


def cases() -> list[Case]:
    """Every power of two up to 1024."""
    found = []
    for log in range(11):
        n = 1 << log
        for shape in ((0, n), (3, n), (2, 5, n)):
            x = np.random.default_rng(19).standard_normal(shape).astype(np.float32)
            for scale in (None, 1.0, -0.37):
                factor = 1 / math.sqrt(n) if scale is None else abs(scale)
                # each of log2(n) additions and two last roundings err by half a unit of at most sum |x|
                bound = (log + 2) * 2**-24 * factor * float(np.abs(x).sum(-1).max(initial=0)) * 1.01
                name = f"{'x'.join(map(str, shape))}-{scale}"
                found.append(Case(name, (x,), {"scale": scale}, hadamard, bound, 8 * x.size, x.size * log))
    return found


def mixed() -> list[Case]:
    """Every outer matrix alone, and some before a power of two, both ways round."""
    found = []
    for n in [*WILLIAMSON, *PALEY, 24, 56, 160, 344, 416, 592, 768]:
        for transpose in (False, True):
            x = np.random.default_rng(n).standard_normal((3, n)).astype(np.float32)
            # sums of n terms, and the last rounding
            bound = n * 2**-24 / math.sqrt(n) * float(np.abs(x).sum(-1).max()) * 1.01
            options = {"scale": None, "transpose": transpose}
            found.append(Case(f"{n}-{transpose}", (x,), options, hadamard, bound, 8 * x.size))
    return found


def hartley() -> list[Case]:
    """Lengths of which no Hadamard matrix is known."""
    found = []
    for n in (3, 6, 23, 92, 184, 236, 1712):
        for transpose in (False, True):
            x = np.random.default_rng(n).standard_normal((3, n)).astype(np.float32)
            scale = None if transpose else 0.25
            # sums of n terms with factors of at most sqrt(2), and the last rounding
            bound = 1.5 * n * 2**-24 * (scale or n**-0.5) * float(np.abs(x).sum(-1).max())
            options = {"scale": scale, "transpose": transpose}
            found.append(Case(f"hartley-{n}-{transpose}", (x,), options, hadamard, bound, 8 * x.size))
    return found


def halves() -> list[Case]:
    """Rows of f16: within what f32 sums err by, and half a unit of f16; and one that overflows."""
    found = []
    for n in (1, 8, 64, 512, 12, 344):
        x = np.random.default_rng(n).standard_normal((5, n)).astype(np.float16)
        largest = float(np.abs(x.astype(np.float64)).sum(-1).max()) / math.sqrt(n)
        bound = (n * 2**-24 + 2**-11) * largest * 1.01
        found.append(Case(f"f16-{n}", (x,), {"scale": None, "transpose": n == 12}, hadamard, bound, 4 * x.size))
    large = np.full((2, 4), 40000, np.float16)
    return [*found, Case("f16-overflow", (large,), {"scale": None}, hadamard, 0.0)]


def large(rows: int, n: int) -> Case:
    """For the bench."""
    x = np.random.default_rng(20).standard_normal((rows, n), np.float32)
    order = n // (n & -n) * 4 if n.bit_count() > 1 else 0
    flops = x.size * ((n // max(order, 1)).bit_length() - 1 + 2 * order)
    return Case(f"{rows}x{n}", (x,), {}, hadamard, 1e-3, 8 * x.size, flops)
