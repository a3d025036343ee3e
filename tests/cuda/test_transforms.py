"""cuda/hadamard and cuda/quantize on the CPU, beside the oracles and beside the bits of the Rust kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from subbyte import kernels
from tests.emulator import Emulated
from tests.oracles import hadamard as hadamard_oracle
from tests.oracles import quantize_tokens as tokens_oracle
from tests.oracles.case import Case

Emulate = Callable[[str], Emulated]


def run_hadamard(emulated: Emulated, x: np.ndarray, scale: float | None, reverse: bool = False) -> np.ndarray:
    n, y = x.shape[-1], np.full(x.shape, np.nan, np.float32)
    short = n <= 256
    blocks = -(-x.size // 2048) if short else x.size // n
    args = [x, y, x.size, n, float(1 / np.sqrt(n) if scale is None else scale)]
    entry, shared = ("hadamard_short", 0) if short else ("hadamard_long", 4 * n)
    emulated.launch(entry, (blocks, 1, 1), (256, 1, 1), args, out=[y], shared=shared, reverse=reverse)
    return y


@pytest.mark.parametrize("case", hadamard_oracle.cases(), ids=str)
def test_hadamard_agrees_with_the_oracle(emulate: Emulate, case: Case) -> None:
    [x], scale = case.args, case.kwargs["scale"]
    got = run_hadamard(emulate("hadamard"), x, scale, reverse=x.size % 3 == 0)
    assert (abs(got - case.oracle(x, scale)) <= case.bound).all()
    assert np.array_equal(got, kernels.hadamard(x, scale))


@pytest.mark.parametrize("n", [2048, 4096, 32768])
def test_hadamard_of_long_rows(emulate: Emulate, n: int) -> None:
    x = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    assert np.array_equal(run_hadamard(emulate("hadamard"), x, None), kernels.hadamard(x))


def test_hadamard_has_no_bank_conflicts(emulate: Emulate) -> None:
    x = np.ones((1, 4096), np.float32)
    args = [x, y := np.zeros_like(x), 4096, 4096, 1.0]
    banks = emulate("hadamard").launch(
        "hadamard_long", (1, 1, 1), (256, 1, 1), args, out=[y], shared=4 * 4096, count=True
    )
    assert banks.wavefronts > 100
    assert banks.conflicts == 0


@pytest.mark.parametrize("case", tokens_oracle.cases(), ids=str)
def test_quantize_tokens_agrees_with_the_oracle(emulate: Emulate, case: Case) -> None:
    [x], eps = case.args, case.kwargs.get("eps", 1e-5)
    codes, scale = np.full(x.shape, 99, np.int8), np.zeros(len(x), np.float32)
    args = [x, codes, scale, x.shape[1], float(eps)]
    for reverse in (False, True):
        emulate("quantize_tokens").launch(
            "quantize_tokens", (len(x), 1, 1), (256, 1, 1), args, out=[codes, scale], reverse=reverse
        )
        expected = case.oracle(x, eps)
        np.testing.assert_array_equal(codes, expected[0])
        np.testing.assert_array_equal(scale, expected[1])


def test_quantize_tokens_of_rows_longer_than_a_block(emulate: Emulate) -> None:
    x = np.random.default_rng(6).standard_normal((3, 1000)).astype(np.float32)
    x[1, 999] = 1e4
    codes, scale = np.zeros(x.shape, np.int8), np.zeros(3, np.float32)
    emulate("quantize_tokens").launch(
        "quantize_tokens", (3, 1, 1), (256, 1, 1), [x, codes, scale, 1000, 1e-5], out=[codes, scale]
    )
    for got, expected in zip((codes, scale), kernels.quantize_tokens(x), strict=True):
        np.testing.assert_array_equal(got, expected)
