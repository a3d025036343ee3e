"""bilevel beside gptq on the same weight: what outliers and a second level add to the column loop."""

from __future__ import annotations

from typing import Any

import pytest
from tests.oracles.bilevel import large
from tests.oracles.case import Case

from subbyte import kernels

CASES = [large(1024, 1024), large(2048, 2048)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.bilevel(*case.args, **case.kwargs)


def without_outliers(case: Case) -> Any:
    return lambda: kernels.bilevel(*case.args, **{**case.kwargs, "threshold": None})


def gptq(case: Case) -> Any:
    return lambda: kernels.gptq(*case.args, bits=4, group=16, symmetric=False, fresh_groups=True)


@pytest.mark.parametrize("who", [subbyte, without_outliers, gptq])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_bilevel(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"bilevel {case}"
    benchmark.extra_info.update(flops=case.flops)
    benchmark(who(case))
