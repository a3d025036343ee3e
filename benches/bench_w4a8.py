"""w4a8 beside onnxruntime (4-bit weights in blocks, inputs rounded to eight bits), torch's int8 product, and w8a8."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.oracles import wna16
from tests.oracles.case import Case
from tests.oracles.w4a8 import large, scaled

from benches import bench_w8a8, bench_wna16
from subbyte import kernels

CASES = [
    *(large(rows, 4096, 4096, group) for group in (128, -1) for rows in (1, 16, 128)),
    *(
        scaled(rows, *shape, zeros=False)
        for shape in ((4096, 4096, 128), (16384, 4096, 32))
        for rows in (1, 16, 128, 512)
    ),
]


def subbyte(case: Case) -> Any:
    return lambda: kernels.w4a8(*case.args, **case.kwargs)


def onnxruntime(case: Case) -> Any:
    """Float scales of groups, or of 128 columns where the case has one a row: it has no other."""
    x, words = case.args[:2]
    group = 128 if case.kwargs["group"] == -1 else case.kwargs["group"]
    return bench_wna16.mat_mul_n_bits(wna16.large(len(x), len(words), x.shape[1], 4, group), accuracy=4)


def as_bytes(case: Case) -> Case:
    """The same product with the weight as bytes, which have one scale a row in any case."""
    x, words, x_scale, w_scale = case.args
    w_scale = w_scale if w_scale.ndim == 1 else w_scale[:, 0].copy()
    codes = kernels.unpack(words, bits=4, cols=x.shape[1]).astype(np.int8)
    return Case(case.id, (x, codes, x_scale, w_scale), {}, case.oracle)


def int_mm(case: Case) -> Any:
    return bench_w8a8.int_mm(as_bytes(case))


def w8a8(case: Case) -> Any:
    return bench_w8a8.subbyte(as_bytes(case))


@pytest.mark.parametrize("who", [subbyte, onnxruntime, int_mm, w8a8])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_w4a8(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"w4a8 {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops, limit="read sgemm")
    benchmark(who(case))
