"""The table of the kernels, from made-up measurements."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from benches.report import Row, beside, lost, page, rows


def bench(who: str, seconds: float, threads: int = 1, group: str = "pack 4x8", **info: Any) -> dict[str, Any]:
    extra = {"who": who, "threads": threads, "bytes": 1000, "limits": {"copy": 1e6}, **info}
    return {"group": group, "stats": {"median": seconds}, "extra_info": extra}


def test_a_row_is_a_kernel_beside_its_fastest_peer_and_the_nearest_limit() -> None:
    limits = {"copy": 1e6, "sgemm": 1e7}
    raw = {
        "benchmarks": [
            bench("subbyte", 2e-3, flops=1000, limits=limits),
            bench("torch", 5e-3),
            bench("numpy", 4e-3),
            bench("subbyte", 1e-3, threads=2),
            bench("torch", 9e-3, group="unpack 4x8"),
        ]
    }
    one, two = rows(raw)
    assert (one.kernel, one.case, one.threads) == ("pack", "4x8", 1)
    assert (one.peer, one.ratio) == ("numpy", pytest.approx(2))
    assert (one.limit, one.fraction) == ("copy", pytest.approx(0.5))
    assert (two.threads, two.peer, two.ratio, two.fraction) == (2, "", None, pytest.approx(1))


def test_a_loss_is_what_every_measure_of_a_kernel_says() -> None:
    before = Row("pack", "4x8", 1, 1.0, {"torch": 4.0, "numpy": 8.0}, "copy", 0.8)

    def now(seconds: float, **peers: float) -> Row:
        return dataclasses.replace(before, seconds=seconds, peers=peers, fraction=0.8 / seconds)

    assert lost([before], [now(1.3, torch=4.0, numpy=8.0)]) == []  # 23 %
    (line,) = lost([before], [now(1.4, torch=4.0, numpy=8.0)])
    assert line == "pack 4x8 1 threads: 4.00 x torch before, 2.86 now"
    assert lost([before], [now(1.4, torch=5.6, numpy=8.0)]) == []  # the machine was slow, torch too
    assert len(lost([before], [now(2.0)])) == 1  # the limit alone
    assert lost([before], [dataclasses.replace(before, case="other", seconds=9.0)]) == []


def test_a_run_of_some_kernels_keeps_the_others() -> None:
    old, other, new = (
        Row(kernel, case, 1, 1.0, {}, "copy", 0.5)
        for kernel, case in (("pack", "4x8"), ("csr", "4x8"), ("pack", "9x9"))
    )
    assert beside([old, other], [new]) == [other, new]  # no case of a kernel that was measured is an older one


def test_the_page_names_processors_and_cards() -> None:
    row = Row("pack", "4x8", 2, 2.5e-6, {"torch": 1e-5}, "copy", 0.755)
    kept = {"processor": "A CPU (AVX2)", "cores": 2, "versions": "torch 2.", "rows": [dataclasses.asdict(row)]}
    text = page([kept], [])
    assert "| pack | 4x8 | 2 | 2.5 us | 4.00 | torch | 76% of copy |" in text
    assert "Not yet measured" in text
    card = {"card": "A GPU", "driver": "CUDA 13.0", "torch": "2.", "rows": [{"kernel": "w8a8", "cold_us": 3.0}]}
    assert "| w8a8 | 3.0 |" in page([], [card])
