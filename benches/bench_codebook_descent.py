"""codebook_descent beside the same sweep in torch: distances to all codewords by a product, a column at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.codebook_descent import large

from subbyte import kernels

CASES = [large(1024, 512, 2, 256), large(1024, 512, 4, 4096), large(1024, 256, 8, 4096, 256)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.codebook_descent(**case.kwargs)


def plain_torch(case: Case) -> Any:
    given = case.kwargs
    weight, hessian, codes, codebook = (
        torch.tensor(given[name]) for name in ("weight", "hessian", "codes", "codebook")
    )
    second = None if given["residual"] is None else torch.tensor(given["residual"][0])
    return lambda: sweep(weight, hessian, codes.long(), codebook[0], second)


def sweep(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    codes: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor | None,
    block: int = 128,
) -> torch.Tensor:
    """The codes after one sweep, by blocks of columns; v divides the rows."""
    (rows, columns), (count, dim) = weight.shape, first.shape
    low = (count - 1).bit_length()
    books = [first] if second is None else [first, second]
    norms = [book.square().sum(1) / 2 for book in books]
    stages = [codes & ((1 << low) - 1), codes >> low][: len(books)]

    def nearest(points: torch.Tensor, stage: int) -> torch.Tensor:
        return torch.addmm(norms[stage], points, books[stage].T, alpha=-1).argmin(1)

    values = sum(book[index] for book, index in zip(books, stages, strict=True)).transpose(1, 2).reshape(rows, columns)
    error = weight - values
    slope = error @ hessian
    for start in range(0, columns, block):
        run = slice(start, min(start + block, columns))
        own, near, left = hessian[run, run], slope[:, run].clone(), error[:, run].clone()
        for k, j in enumerate(range(run.start, run.stop)):
            if own[k, k] == 0:
                continue
            now = weight[:, j] - left[:, k]
            ideal = (now + near[:, k] / own[k, k]).reshape(-1, dim)
            found = [stage[:, j] for stage in stages]
            if second is None:
                found = [nearest(ideal, 0)]
            else:
                found[0] = nearest(ideal - second[found[1]], 0)
                found[1] = nearest(ideal - first[found[0]], 1)
            words = sum(book[index] for book, index in zip(books, found, strict=True))
            old = now.reshape(-1, dim)
            nearer = (words - ideal).square().sum(1) < (old - ideal).square().sum(1)
            for stage, index in zip(stages, found, strict=True):
                stage[:, j] = torch.where(nearer, index, stage[:, j])
            after = weight[:, j] - torch.where(nearer[:, None], words, old).reshape(-1)
            near += torch.outer(after - left[:, k], own[k])
            left[:, k] = after
        slope += (left - error[:, run]) @ hessian[run]
        error[:, run] = left
    return stages[0] if second is None else stages[0] | stages[1] << low


@pytest.mark.parametrize("who", [subbyte, plain_torch])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_codebook_descent(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"codebook_descent {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
