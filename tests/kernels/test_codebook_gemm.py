from __future__ import annotations

import numpy as np
import pytest
from tests.oracles.case import Case
from tests.oracles.codebook_gemm import cases, lattice, table

from subbyte import kernels
from subbyte.errors import RangeError, ShapeError

paths = pytest.mark.parametrize("path", kernels.paths())


@paths
@pytest.mark.parametrize("case", cases(), ids=str)
def test_agrees_with_the_oracle(case: Case, path: str) -> None:
    with kernels.forced(path):
        case.check(kernels.codebook_gemm(*case.args, **case.kwargs))


@paths
@pytest.mark.parametrize("rows", [1, 8, 9])
def test_does_not_depend_on_the_threads(rows: int, path: str) -> None:
    for one in (lattice(rows, 300, 96, 3), table(rows, 300, 96, 8, (64, 4))):
        results = []
        for threads in (1, 2, 5):
            with kernels.forced(path, threads):
                results.append(kernels.codebook_gemm(*one.args, **one.kwargs))
        assert all(np.array_equal(result, results[0]) for result in results)


@paths
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_one_hot_inputs_read_single_values_exactly(bits: int, path: str) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << 8 * bits, (5, 8)).astype(np.uint32).view(np.int32)
    lanes = codes.view(np.uint8).reshape(5, 8, 4)[:, :, :bits]
    words = np.ascontiguousarray(lanes).reshape(5, 8 * bits).view(np.int32)
    with kernels.forced(path):
        got = kernels.codebook_gemm(np.eye(64, dtype=np.float32), words, bits)
    np.testing.assert_array_equal(got.T, kernels.e8p_decode(codes.astype(np.uint16) if bits == 2 else codes, bits))


@paths
@pytest.mark.parametrize("rows", [1, 3, 12])
def test_not_finite_inputs_show(rows: int, path: str) -> None:
    x, words = lattice(rows, 4, 64, 2).args
    x = x.copy()
    x[-1, 5] = np.nan
    with kernels.forced(path):
        got = kernels.codebook_gemm(x, words)
    assert np.isnan(got[-1]).all()
    assert np.isfinite(got[:-1]).all()


def test_no_columns_give_zeros() -> None:
    got = kernels.codebook_gemm(np.zeros((2, 0), np.float32), np.zeros((3, 0), np.int32))
    assert np.array_equal(got, np.zeros((2, 3), np.float32))


def test_bad_input() -> None:
    x, words = lattice(2, 3, 64, 2).args
    book = np.ones((1, 3, 2), np.float32)
    for options in ({"bits": 5}, {"bits": 1}, {"codebook": book[:, :0].copy()}, {"codebook": book, "words": words - 1}):
        given = {"x": x, "words": words} | options
        if options.get("words") is not None:
            given["words"] = np.full((3, 4), -1, np.int32)  # code 3 of three
        with pytest.raises((RangeError, ShapeError)):
            kernels.codebook_gemm(**given)
    with pytest.raises(RangeError, match="codes 3"):
        kernels.codebook_gemm(x, np.full((3, 4), -1, np.int32), codebook=book)
    for options in (
        {"words": words[:, :3].copy()},
        {"x": x[:, :60].copy()},
        {"outputs": 4},
        {"residual": book},
        {"codebook": book, "residual": np.ones((2, 3, 2), np.float32)},
    ):
        with pytest.raises(ShapeError):
            kernels.codebook_gemm(**({"x": x, "words": words} | options))
