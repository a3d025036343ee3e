"""gptq_codebook beside the same loop in torch: distances to all codewords by a product, a column at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.gptq_codebook import large

from subbyte import kernels

CASES = [large(1024, 512, 4, 256), large(1024, 256, 6, 4096), large(1024, 128, 8, 4096, 256)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.gptq_codebook(*case.args, **case.kwargs)


def plain_torch(case: Case) -> Any:
    weight, factor, *books = map(torch.tensor, case.args)
    return lambda: column_loop(weight.clone(), factor, [book[0] for book in books])


def column_loop(
    weight: torch.Tensor, factor: torch.Tensor, books: list[torch.Tensor], block: int = 128
) -> list[torch.Tensor]:
    """The indices of each stage, by blocks of columns; v divides the rows."""
    (rows, columns), dim = weight.shape, books[0].shape[1]
    padded = torch.nn.functional.pad(weight, (0, 0, 0, -rows % dim))
    norms = [book.square().sum(1) / 2 for book in books]
    codes = [torch.empty(len(padded) // dim, columns, dtype=torch.int64) for _ in books]
    for start in range(0, columns, block):
        end = min(start + block, columns)
        part, errors = padded[:, start:end].clone(), torch.zeros(len(padded), end - start)
        for j in range(start, end):
            left = part[:, j - start].reshape(-1, dim)
            for stage, (book, norm) in enumerate(zip(books, norms, strict=True)):
                index = torch.addmm(norm, left, book.T, alpha=-1).argmin(1)
                codes[stage][:, j], left = index, left - book[index]
            error = left.reshape(-1) / factor[j, j]
            part[:, j - start :] -= torch.outer(error, factor[j, j:end])
            errors[:, j - start] = error
        padded[:, end:] -= errors @ factor[start:end, end:]
    return codes


@pytest.mark.parametrize("who", [subbyte, plain_torch])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_gptq_codebook(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"gptq_codebook {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops)
    benchmark(who(case))
