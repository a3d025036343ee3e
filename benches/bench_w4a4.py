"""w4a4 beside w4a8 and w8a8 of the same numbers, and torch's int8 product: what a CPU without 4 bits multiplies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.w4a4 import large

from benches import bench_w8a8
from subbyte import kernels

#: QuaRot's and Atom's.
CASES = [large(rows, 4096, 4096, *kind) for kind in ((-1,), (128, 128)) for rows in (1, 16, 128)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.w4a4(*case.args, **case.kwargs)


def as_bytes(words: Any) -> Any:
    return kernels.unpack(words, bits=4, cols=8 * words.shape[1]).astype(np.int8) - np.int8(8)


def bytes_of(case: Case) -> Case:
    """The same product of bytes, which have one scale a row in any case."""
    scales = [scale[:, 0].copy() for scale in case.args[2:]]
    return Case(case.id, (*map(as_bytes, case.args[:2]), *scales), {}, case.oracle)


def int_mm(case: Case) -> Any:
    return bench_w8a8.int_mm(bytes_of(case))


def w8a8(case: Case) -> Any:
    return bench_w8a8.subbyte(bytes_of(case))


def w4a8(case: Case) -> Any:
    """With the weight's scales of groups, where there are some."""
    x, words, x_scale, w_scale = case.args
    w_scale = w_scale[:, 0].copy() if w_scale.shape[1] == 1 else w_scale
    given, group = (as_bytes(x), words, x_scale[:, 0].copy(), w_scale), case.kwargs["group"]
    return lambda: kernels.w4a8(*given, group=group)


@pytest.mark.parametrize("who", [subbyte, w4a8, w8a8, int_mm])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_w4a4(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"w4a4 {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops, limit="read sgemm")
    benchmark(who(case))
