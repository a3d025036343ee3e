"""e8p_decode beside torch's gather from the table of all values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.e8p_decode import large, table

from subbyte import kernels

CASES = [large(64, 64), large(4096, 512)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.e8p_decode(*case.args)


def gather(case: Case) -> Any:
    values, codes = torch.from_numpy(table()).float(), torch.from_numpy(case.args[0].astype("i4")).ravel()
    return lambda: values.index_select(0, codes)


@pytest.mark.parametrize("who", [subbyte, gather])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_e8p_decode(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group, benchmark.extra_info["bytes"] = f"e8p_decode {case}", case.bytes
    benchmark(who(case))
