"""Row by row: the expert that has it is searched for, codes and scales by their definition, the product in f64."""

from __future__ import annotations

import numpy as np
from tests.oracles.case import Case
from tests.oracles.fp8 import codes, decoded
from tests.oracles.wna16_grouped import expert_of


def wide(
    x: np.ndarray,
    weight: np.ndarray,
    x_scale: np.ndarray,
    w_scale: np.ndarray,
    offsets: np.ndarray,
    format: str,
    bias: np.ndarray | None,
    rows: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """[R, N] f64: the result before it is rounded, and the sum of the magnitudes of its terms."""
    order = list(range(len(x))) if rows is None else rows.tolist()
    tokens, weights = decoded(x, x_scale, format), [decoded(*of, format) for of in zip(weight, w_scale, strict=True)]
    y, size = np.zeros((2, len(order), weight.shape[1]))
    for r, number in enumerate(order):
        e = expert_of(r, offsets)
        shift = np.zeros(weight.shape[1]) if bias is None else bias[e].astype(np.float64)
        y[r] = weights[e] @ tokens[number] + shift
        size[r] = abs(weights[e]) @ abs(tokens[number]) + abs(shift)
    return y, size


def fp8_grouped(
    x: np.ndarray,
    weight: np.ndarray,
    x_scale: np.ndarray,
    w_scale: np.ndarray,
    offsets: np.ndarray,
    format: str = "e4m3fn",
    bias: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Each row with its expert, rounded once."""
    return wide(x, weight, x_scale, w_scale, offsets, format, bias, rows)[0].astype(np.float32)


def case(
    counts: tuple[int, ...],
    cols: int,
    depth: int,
    x_grid: tuple[int, int] = (1, 0),
    w_grid: tuple[int, int] = (1, 0),
    format: str = "e4m3fn",
    biased: bool = False,
    tokens: int | None = None,
    check: bool = True,
    whole: bool = False,
) -> Case:
    """Experts with `counts` rows; `tokens`: rows of x, of which each row takes one; the rest as in the cases of fp8."""
    random, total, experts = np.random.default_rng([*counts, cols, depth]), sum(counts), len(counts)
    count = total if tokens is None else tokens
    x, weight = (codes(random, shape, format, whole) for shape in ((count, depth), (experts, cols, depth)))
    x_scale, w_scale = (
        random.uniform(1e-4, 1e-2, (*of, -(-many // tall) if tall else 1, max(1, -(-depth // wide)) if wide else 1))
        for of, many, (tall, wide) in (((), count, x_grid), ((experts,), cols, w_grid))
    )
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    options = {
        "format": format,
        "bias": random.standard_normal((experts, cols)).astype(np.float32) if biased else None,
        "rows": None if tokens is None else random.integers(0, tokens, total).astype(np.int32),
    }
    args = (x, weight, x_scale.astype(np.float32), w_scale.astype(np.float32), offsets)
    limit = 0.0
    if check:  # K + 3 roundings of f32, twice as wide where a tensor core adds; then that of the bias and of the oracle
        limit = (depth + 5) * 2.0**-23 * float(wide(*args, *options.values())[1].max(initial=0))
    given = f"{'.'.join(map(str, counts))}x{cols}x{depth}-x{x_grid[0]}.{x_grid[1]}-w{w_grid[0]}.{w_grid[1]}"
    name = f"{given}-{format}" + "-bias" * biased + ("" if tokens is None else f"-of{tokens}") + "-whole" * whole
    used = sum(each > 0 for each in counts) / max(experts, 1)
    moved = int(used * weight.size) + total * (depth + 4 * cols)
    return Case(name, args, options, fp8_grouped, limit, bytes=moved, flops=2 * total * cols * depth)


def cases() -> list[Case]:
    """Every granularity with experts without rows in every place; ragged ones, in and out of order; nothing at all."""
    found = []
    for format in ("e4m3fn", "e5m2"):
        for x_grid, w_grid in (((0, 0), (0, 0)), ((1, 0), (1, 0)), ((1, 128), (128, 128)), ((128, 128), (1, 128))):
            for counts, shape, tokens in (((0, 3, 0), (5, 17), None), ((2, 1, 9, 0, 12), (3, 130), 140)):
                found.append(case(counts, *shape, x_grid, w_grid, format, biased=tokens is None, tokens=tokens))
    found += [case((4, 0, 17), cols, depth, tokens=6) for cols, depth in ((1, 1), (131, 33), (0, 8))]
    return [*found, case((), 3, 8), case((0, 0), 3, 8), case((2, 1), 3, 0, biased=True), case((1,), 1, 1, tokens=1)]


def large(tokens: int, experts: int, chosen: int, cols: int, depth: int) -> Case:
    """For the bench: each token with `chosen` of the experts, tokens by channels."""
    random = np.random.default_rng(tokens)
    counts = np.bincount(random.integers(0, experts, tokens * chosen), minlength=experts)
    return case(tuple(counts.tolist()), cols, depth, tokens=tokens, check=False)
