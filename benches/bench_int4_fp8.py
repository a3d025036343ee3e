"""int4_fp8 beside the same weights in 8-bit floats, and as floats, which is what a CPU without fp8 multiplies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.int4_fp8 import large

from benches import bench_fp8
from subbyte import kernels

CASES = [large(rows, 4096, 4096) for rows in (1, 16, 128)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.int4_fp8(*case.args, **case.kwargs)


def as_bytes(case: Case) -> Case:
    """The codes as 8-bit floats, which they are, with one scale for 128 columns."""
    x, words, x_scale, w_scale = case.args
    codes = kernels.unpack(words, bits=4, cols=x.shape[1]).astype(np.float32) - 8
    weight = kernels.encode_minifloat(codes, "e4m3fn")
    scales = kernels.decode_minifloat(w_scale, "e4m3fn") * np.float32(case.kwargs["tensor_scale"])
    return Case(case.id, (x, weight, x_scale[:, None].copy(), scales), {}, case.oracle)


def fp8(case: Case) -> Any:
    return bench_fp8.subbyte(as_bytes(case))


def float_matmul(case: Case) -> Any:
    return bench_fp8.float_matmul(as_bytes(case))


@pytest.mark.parametrize("who", [subbyte, fp8, float_matmul])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_int4_fp8(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"int4_fp8 {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops, limit="read sgemm")
    benchmark(who(case))
