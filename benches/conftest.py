"""Every bench on one thread and on two, beside the limit of the machine that moves or computes as much.

A bench says in `extra_info` what it moves (`bytes`) and computes (`flops`); this file adds what a plain copy of as many
bytes and a product of large matrices reach in the same process on as many threads, as `limits`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch

from subbyte import kernels

collect_ignore = ["peers"]  # run in environments of their own, which pytest does not have

THREADS = (1, 2)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Both numbers of threads where time is taken, else the threads there are."""
    timed = not metafunc.config.getoption("benchmark_disable")
    metafunc.parametrize("threads", THREADS if timed else [None], ids=lambda n: f"{n or 'all'}t", indirect=True)


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Holds this package, torch and faiss to a number of threads; notes what and how fast the machine could."""
    count: int | None = request.param
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    _faiss(count)
    info = request.getfixturevalue("benchmark").extra_info
    with kernels.forced(threads=count):
        yield
    who = request.node.callspec.params["who"]
    info.update(threads=count, who=who if isinstance(who, str) else who.__name__)
    info["limits"] = {
        name: reach(count, info[unit])
        for name, (unit, reach) in LIMITS.items()
        if unit in info and name in info.get("limit", "copy sgemm")
    }
    torch.set_num_threads(before)
    _faiss(before)


def _faiss(count: int) -> None:
    try:
        import faiss
    except ImportError:
        return
    faiss.omp_set_num_threads(count)


def fastest(run: Callable[[], object], seconds: float = 0.2) -> float:
    """Seconds of the median of several runs: as the benches are taken."""
    taken: list[float] = []
    run()
    end = time.perf_counter() + seconds
    while len(taken) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2]


def copy(threads: int, moved: int) -> float:
    """Bytes a second, read and written, of a copy that moves about as many bytes: in the cache if these are."""
    return _copy(threads, max(moved, 2).bit_length())


@cache
def _copy(threads: int, bits: int) -> float:
    half = 3 << bits >> 3  # three quarters of 2^bits in all: the middle of all sizes with as many bits
    source, target = torch.ones(half, dtype=torch.uint8), torch.empty(half, dtype=torch.uint8)
    return 2 * half / fastest(lambda: target.copy_(source))


def read(threads: int, moved: int) -> float:
    """Bytes a second of a sum over about as many bytes."""
    return _read(threads, max(moved, 4).bit_length())


@cache
def _read(threads: int, bits: int) -> float:
    numbers = torch.ones((3 << bits >> 2) // 4)
    return 4 * len(numbers) / fastest(lambda: numbers.sum())


@cache
def sgemm(threads: int, _: int = 0) -> float:
    """Operations a second of a product of f32 matrices, 2048 x 2048."""
    square = torch.ones(2048, 2048)
    return 2 * 2048**3 / fastest(lambda: square @ square, 1)


LIMITS: dict[str, tuple[str, Any]] = {
    "copy": ("bytes", copy),
    "read": ("bytes", read),
    "sgemm": ("flops", lambda threads, _: sgemm(threads)),
}
