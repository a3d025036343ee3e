"""e8p_encode beside the search of all 65536 codewords by matrix products in torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.e8p_decode import table
from tests.oracles.e8p_encode import large

from subbyte import kernels

CASES = [large(16, 1024)]


def subbyte(case: Case) -> Any:
    return lambda: kernels.e8p_encode(*case.args)


def brute_force(case: Case) -> Any:
    x = torch.from_numpy(case.args[0]).view(-1, 8)
    values = torch.from_numpy(table()).float()
    half = values.square().sum(1) / 2
    return lambda: torch.cat([(part @ values.T - half).argmax(1) for part in x.split(256)])


@pytest.mark.parametrize("who", [subbyte, brute_force])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_e8p_encode(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"e8p_encode {case}"
    benchmark.extra_info.update(bytes=case.bytes, limit="copy")  # most entries are never looked at
    benchmark(who(case))
