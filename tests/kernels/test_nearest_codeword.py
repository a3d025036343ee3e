from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles import nearest_codeword as oracle
from tests.oracles.case import Case

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError, UnknownNameError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", oracle.cases(), ids=str)
def test_no_codeword_is_nearer_beyond_rounding(case: Case, path: str) -> None:
    with kernels.forced(path):
        index, near = kernels.nearest_codeword(*case.args)
    scores, bound = oracle.scores(*case.args), oracle.bound(*case.args)
    assert (index.dtype, near.dtype, index.shape) == (np.int32, np.float32, (len(scores),))
    chosen = np.take_along_axis(scores, index[:, None], 1)[:, 0]
    assert (chosen <= scores.min(1) + bound).all()
    sign = 1 if case.args[3] == "l2" else -1
    assert (np.abs(near - sign * chosen) <= bound).all()


@paths
@pytest.mark.parametrize("case", oracle.cases(), ids=str)
def test_every_path_gives_the_same_bits(case: Case, path: str) -> None:
    with kernels.forced("scalar", 1):
        expected = kernels.nearest_codeword(*case.args)
    for threads in (1, 3):
        with kernels.forced(path, threads):
            got = kernels.nearest_codeword(*case.args)
        assert all(np.array_equal(one, other) for one, other in zip(got, expected, strict=True))


@paths
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 90), st.integers(1, 5), st.booleans())
def test_small_integers_are_exact(path: str, seed: int, points: int, count: int, dim: int, weighted: bool) -> None:
    """No sum rounds, so that ties are many and the first codeword has to win each."""
    random = np.random.default_rng(seed)
    x, codebook = (random.integers(-3, 4, (n, dim)).astype(np.float32) for n in (points, count))
    weights = random.integers(0, 3, (points, dim)).astype(np.float32) if weighted else None
    for metric in ("l2", "inner"):
        with kernels.forced(path):
            got = kernels.nearest_codeword(x, codebook, weights, metric)
        for one, other in zip(got, oracle.nearest_codeword(x, codebook, weights, metric), strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


@paths
@pytest.mark.parametrize("count", [2, 16, 40, 300, 5000])
def test_every_codeword_finds_itself(path: str, count: int) -> None:
    codebook = np.random.default_rng(1).standard_normal((count, 6), np.float32)
    with kernels.forced(path):
        index, near = kernels.nearest_codeword(codebook, codebook)
        twice, _ = kernels.nearest_codeword(codebook, np.concatenate([codebook, codebook]))
    assert np.array_equal(index, np.arange(count))
    assert np.array_equal(twice, index)
    assert not near.any()


def test_more_codewords_than_sixteen_bits_count() -> None:
    codebook = np.random.default_rng(2).standard_normal((70_000, 4), np.float32)
    index, near = kernels.nearest_codeword(codebook[[69_999, 5]], codebook)
    assert index.tolist() == [69_999, 5]
    assert near.tolist() == [0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_named(bad: float) -> None:
    for name in ("x", "codebook", "weights"):
        arrays = {key: np.ones((4, 5), np.float32) for key in ("x", "codebook", "weights")}
        arrays[name][2, 3] = bad
        with pytest.raises(NotFiniteError, match=rf"{name}: given -?\w+ in row 2, column 3"):
            kernels.nearest_codeword(**arrays)


def test_wrong_calls_are_refused() -> None:
    x = np.ones((4, 5), np.float32)
    with pytest.raises(RangeError, match="codebook"):
        kernels.nearest_codeword(x, x[:0])
    with pytest.raises(RangeError, match="weights: given -1"):
        kernels.nearest_codeword(x, x, -x)
    with pytest.raises(RangeError, match="squares"):
        kernels.nearest_codeword(np.float32(1e19) * x, x)
    with pytest.raises(ShapeError, match="codebook"):
        kernels.nearest_codeword(x, x[:, :4].copy())
    with pytest.raises(ShapeError, match="weights"):
        kernels.nearest_codeword(x, x, x[:3])
    with pytest.raises(UnknownNameError, match="cosine"):
        kernels.nearest_codeword(x, x, metric="cosine")
