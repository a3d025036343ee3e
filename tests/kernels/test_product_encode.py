from __future__ import annotations

import numpy as np
import pytest
from tests.oracles import nearest_codeword as nearest
from tests.oracles import product_encode as oracle
from tests.oracles.case import Case

from subbyte import kernels
from subbyte.errors import NotFiniteError, RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", oracle.cases(), ids=str)
def test_no_codeword_is_nearer_beyond_rounding(case: Case, path: str, threads: int) -> None:
    with kernels.forced(path, threads):
        codes = kernels.product_encode(*case.args)
    x, codebooks = case.args
    assert codes.shape == (len(x), len(codebooks))
    assert codes.dtype == (np.uint8 if codebooks.shape[1] <= 256 else np.uint16)
    for part, (mine, codebook) in enumerate(oracle.parts_of(x, codebooks)):
        scores = nearest.scores(mine, codebook)
        chosen = np.take_along_axis(scores, codes[:, part : part + 1].astype(np.int64), 1)[:, 0]
        assert (chosen <= scores.min(1) + nearest.bound(mine, codebook)).all()


@paths
def test_small_integers_are_exact(path: str) -> None:
    random = np.random.default_rng(1)
    x, codebooks = (random.integers(-3, 4, shape).astype(np.float32) for shape in ((50, 12), (4, 30, 3)))
    with kernels.forced(path):
        np.testing.assert_array_equal(kernels.product_encode(x, codebooks), oracle.product_encode(x, codebooks))


@paths
def test_every_codeword_keeps_its_code(path: str) -> None:
    random = np.random.default_rng(2)
    codebooks = random.standard_normal((5, 300, 4), np.float32)
    codes = random.integers(0, 300, (70, 5)).astype(np.uint16)
    with kernels.forced(path):
        np.testing.assert_array_equal(
            kernels.product_encode(kernels.product_decode(codes, codebooks), codebooks), codes
        )


def test_a_trained_product_has_the_error_of_the_theory() -> None:
    """Normal numbers, two a code of eight bits: above Zador's limit of 8 pi G / 256 with G = 5 / (36 sqrt(3)), which is
    0.0079 of their variance, and below the best scalar codebook of four bits, 0.0095."""
    x = np.random.default_rng(3).standard_normal((30_000, 2), np.float32)
    codebook, _, _ = kernels.kmeans(x[:20_000].copy(), 256)
    fresh = x[20_000:].copy()
    back = kernels.product_decode(kernels.product_encode(fresh, codebook[None]), codebook[None])
    assert 0.0079 < np.square(back - fresh).mean() < 0.0087


def test_wrong_calls_are_refused() -> None:
    x, codebooks = np.ones((2, 6), np.float32), np.ones((3, 4, 2), np.float32)
    with pytest.raises(RangeError):
        kernels.product_encode(x, codebooks[:, :0].copy())
    with pytest.raises(RangeError):
        kernels.product_encode(x[:, :1].copy(), np.zeros((1, 65_537, 1), np.float32))
    with pytest.raises(ShapeError):
        kernels.product_encode(x[:, :5].copy(), codebooks)
    codebooks[1, 2, 1] = np.nan
    with pytest.raises(NotFiniteError, match="codebook"):
        kernels.product_encode(x, codebooks)
