"""compensated: the minimum of what its docstring says, and a model that is nearer to the float one for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.pipeline.mini import MINI, TOKENS

import subbyte
from subbyte.calibration import Statistics
from subbyte.pipeline import Result, compensation
from subbyte.pipeline.compensation import compensated
from subbyte.systems import gptq


def statistics(x: np.ndarray, exact: np.ndarray) -> Statistics:
    drift, gram = (exact - x).T @ x, x.T @ x
    return Statistics(len(x), torch.from_numpy(gram).float(), drift=torch.from_numpy(drift).float())


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_the_whole_step_is_the_least_squares_solution(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    exact = random.standard_normal((200, 12)) * scale
    x = exact + 0.3 * scale * random.standard_normal((200, 12)) @ random.standard_normal((12, 12))
    weight = random.standard_normal((5, 12))
    solution = np.linalg.lstsq(x, exact @ weight.T)[0].T
    monkeypatch.setattr(compensation, "RIDGE", 1e-6)
    for share in (0.25, 1.0):
        found = compensated(torch.from_numpy(weight).float(), statistics(x, exact), share).numpy()
        np.testing.assert_allclose(found, weight + share * (solution - weight), atol=2e-4)


def test_never_further_from_the_float_outputs_at_any_share() -> None:
    random = np.random.default_rng(1)
    exact = random.standard_normal((100, 8))
    x = np.round(2 * exact) / 2
    weight = random.standard_normal((4, 8)).astype(np.float32)
    target, seen = exact @ weight.T, statistics(x, exact)

    def missed(share: float) -> float:
        found = compensated(torch.from_numpy(weight), seen, share).numpy()
        return float(np.square(x @ found.T - target).sum())

    distances = [missed(share) for share in (0.0, 0.25, 0.5, 1.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0]


def test_what_was_never_seen_stays() -> None:
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    x = np.zeros((10, 6))
    exact = x.copy()
    exact[:, 2] = 1
    assert torch.equal(compensated(weight, statistics(x, exact), 1.0), weight)
    assert compensated(weight, Statistics(0, torch.zeros(6, 6), drift=torch.zeros(6, 6)), 1.0) is weight
    assert compensated(weight, Statistics(4, torch.eye(6)), 1.0) is weight


def test_the_model_is_nearer_to_the_float_one(tmp_path: object) -> None:
    """At two bits, at the output of the last block, on the calibration text; the first linears are the same."""
    plain, moved = (
        subbyte.quantize(MINI, gptq(bits=2, group_size=64, compensate=c), f"{tmp_path}/{c}", calibration=TOKENS)
        for c in (0.0, 0.5)
    )
    assert isinstance(plain, Result)
    assert isinstance(moved, Result)
    assert plain.blocks[0].layers[0] == moved.blocks[0].layers[0]  # nothing before them is quantized
    assert moved.blocks[-1].error < 0.97 * plain.blocks[-1].error
