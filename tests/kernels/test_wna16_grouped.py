from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.wna16_grouped import case, cases

from subbyte import kernels
from subbyte.errors import RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.wna16_grouped(*case.args, **case.kwargs))


@paths
def test_gives_the_bits_of_each_expert_alone(path: str) -> None:
    x, words, scale, zero, offsets = case((3, 0, 1, 20), 70, 96, 4, 32, zeros=True).args
    with kernels.forced(path):
        got = kernels.wna16_grouped(x, words, scale, zero, offsets, 4, 32)
        for e, (first, last) in enumerate(pairwise(offsets)):
            alone = kernels.wna16(x[first:last].copy(), words[e], scale[e], zero[e], 4, 32)
            np.testing.assert_array_equal(got[first:last], alone)


@paths
def test_does_not_depend_on_the_threads(path: str) -> None:
    one = case((1, 8, 40), 300, 96, 3, 32, tokens=7, check=False)
    results = []
    for threads in (1, 2, 5):
        with kernels.forced(path, threads):
            results.append(kernels.wna16_grouped(*one.args, **one.kwargs))
    assert all(np.array_equal(result, results[0]) for result in results)


def test_a_routed_layer() -> None:
    """What a router does: two experts a token, the results brought back in the order of the tokens."""
    random, experts, chosen = np.random.default_rng(0), 5, 2
    x, words, scale, _, _ = case((6,) * experts, 9, 32, tokens=16).args
    choice = np.stack([random.permutation(experts)[:chosen] for _ in x])
    order = np.argsort(choice.ravel(), kind="stable").astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(choice.ravel(), minlength=experts))]).astype(np.int32)
    back = np.empty((len(order), 9), np.float32)
    back[order] = kernels.wna16_grouped(x, words, scale, None, offsets, 4, rows=order // np.int32(chosen))
    for token, row in enumerate(x):
        for at, e in enumerate(choice[token]):
            alone = kernels.wna16(row[None], words[e], scale[e], None, 4)[0]
            np.testing.assert_allclose(back[token * chosen + at], alone, rtol=0, atol=1e-5)


def test_no_columns_give_zeros() -> None:
    x, words, scale = np.zeros((3, 0), np.float32), np.zeros((2, 4, 0), np.int32), np.zeros((2, 4, 0), np.float32)
    got = kernels.wna16_grouped(x, words, scale, None, np.int32([0, 1, 3]), bits=4)
    assert np.array_equal(got, np.zeros((3, 4), np.float32))


def test_what_does_not_fit_is_refused() -> None:
    x, words, scale, zero, offsets = case((2, 1, 3), 6, 32, 4, 16, zeros=True).args
    with pytest.raises(RangeError, match="bits"):
        kernels.wna16_grouped(x, words, scale, zero, offsets, bits=9, group=16)
    for wrong, says in (
        ([0, 3, 2, 6], "before it starts"),
        ([1, 2, 3, 6], "from 0 to 6"),
        ([0, 2, 3, 5], "from 0 to 6"),
    ):
        with pytest.raises(RangeError, match=says):
            kernels.wna16_grouped(x, words, scale, zero, np.int32(wrong), 4, 16)
    for number in (-1, 6):
        with pytest.raises(RangeError, match=f"rows: given {number}"):
            kernels.wna16_grouped(x, words, scale, zero, offsets, 4, 16, np.int32([0, 1, 2, 3, 4, number]))
    for args in (
        (x, words[:, :, :3].copy(), scale, zero, offsets),
        (x, words, scale[:2].copy(), zero, offsets),
        (x, words, scale, zero[:, :5].copy(), offsets),
        (x, words, scale, zero, offsets[:3].copy()),
        (x, words[0].copy(), scale, zero, offsets),
    ):
        with pytest.raises(ShapeError):
            kernels.wna16_grouped(*args, 4, 16)
