"""Row by row: the expert that has it is searched for, its weight decoded from Python integers, the product in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles import wna16 as one_weight
from tests.oracles.case import Case


def expert_of(row: int, offsets: np.ndarray) -> int:
    """The one expert whose range of rows holds this one."""
    (expert,) = [e for e in range(len(offsets) - 1) if row in range(offsets[e], offsets[e + 1])]
    return expert


def wide(
    x: np.ndarray,
    words: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray | None,
    offsets: np.ndarray,
    bits: int,
    rows: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """[R, N] f64: the result before it is rounded, and the sum of the magnitudes of its terms."""
    order = list(range(len(x))) if rows is None else rows.tolist()
    weights = [
        one_weight.decoded(words[e], scale[e], None if zero is None else zero[e], bits, x.shape[1])
        for e in range(len(words))
    ]
    y, size = np.zeros((2, len(order), words.shape[1]))
    for r, number in enumerate(order):
        weight, row = weights[expert_of(r, offsets)], x[number].astype(np.float64)
        y[r], size[r] = weight @ row, abs(weight) @ abs(row)
    return y, size


def wna16_grouped(
    x: np.ndarray,
    words: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray | None,
    offsets: np.ndarray,
    bits: int,
    group: int = -1,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Each row with its expert, rounded once."""
    assert group in (-1, x.shape[1] // max(scale.shape[2], 1))
    return wide(x, words, scale, zero, offsets, bits, rows)[0].astype(x.dtype)


def case(
    counts: tuple[int, ...],
    cols: int,
    depth: int,
    bits: int = 4,
    group: int = -1,
    zeros: bool = False,
    tokens: int | None = None,
    dtype: str = "f4",
    check: bool = True,
) -> Case:
    """Experts with `counts` rows; `tokens`: rows of x, of which each row of the result takes one at random."""
    random, total = np.random.default_rng([*counts, cols, depth, bits]), sum(counts)
    group, experts = (depth if group == -1 else group), len(counts)
    x = random.standard_normal((total if tokens is None else tokens, depth)).astype(dtype)
    words = random.integers(-(2**31), 2**31, (experts, cols, -(-depth * bits // 32))).astype(np.int32)
    scale = random.uniform(0.01, 0.1, (experts, cols, depth // group)).astype(dtype)
    zero = random.integers(0, 2**bits, scale.shape).astype(np.uint8) if zeros else None
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    rows = None if tokens is None else random.integers(0, tokens, total).astype(np.int32)
    args, options = (x, words, scale, zero, offsets), {"bits": bits, "group": group, "rows": rows}
    limit = 0.0
    if check:
        largest = float(wide(*args, bits, rows)[1].max(initial=0))
        limit = ((depth + 3) * 2.0**-24 + np.finfo(x.dtype).eps / 2 * (dtype != "f4")) * largest
    given = f"{'.'.join(map(str, counts))}x{cols}x{depth}-b{bits}-g{group}" + "-zeros" * zeros
    name = given + ("" if tokens is None else f"-of{tokens}") + ("" if dtype == "f4" else f"-{dtype}")
    used = sum(count > 0 for count in counts) / max(experts, 1)
    moved = int(used * (words.nbytes + scale.nbytes)) + x.itemsize * total * (depth + cols)
    return Case(name, args, options, wna16_grouped, limit, bytes=moved, flops=2 * total * cols * depth)


def cases() -> list[Case]:
    """Experts without rows in every place, one with all, ragged ones around both bodies; rows in and out of order."""
    found = [
        case(counts, 5, 40, bits, 8, zeros, tokens)
        for counts in ((1,), (0, 3, 0), (0, 0), (2, 1, 9, 0, 12))
        for bits, zeros in ((3, True), (4, False), (8, True))
        for tokens in (None, 4)
    ]
    found += [case((4, 0, 17), cols, depth, tokens=6) for cols, depth in ((1, 1), (70, 33), (0, 8))]
    return [*found, case((), 3, 8), *(case((1, 10), 9, 64, group=32, tokens=5, dtype="f2", zeros=z) for z in (0, 1))]


def large(tokens: int, experts: int, chosen: int, cols: int, depth: int) -> Case:
    """For the bench: each token with `chosen` of the experts, 4 bits in groups of 128."""
    random = np.random.default_rng(tokens)
    counts = np.bincount(random.integers(0, experts, tokens * chosen), minlength=experts)
    return case(tuple(counts.tolist()), cols, depth, 4, 128, tokens=tokens, check=False)
