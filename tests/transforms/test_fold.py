"""Folding leaves the function of a block as it was, for every family, kind of pair, bias, offset and stored dtype."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.anatomy import tiny
from tests.transforms.blocks import ALL, MINI, difference, works

from subbyte.anatomy import Pair
from subbyte.calibration import measure
from subbyte.errors import ArchitectureError, NotFiniteError, RangeError, ShapeError
from subbyte.transforms import Work, fold
from subbyte.transforms.fold import pooled


def random_scale(work: Work, pair: Pair, seed: int = 1) -> np.ndarray:
    columns = work.weight(pair.consumers[0]).shape[1]
    values = np.exp(np.random.default_rng(seed).normal(0, 1, columns)).astype(np.float32)
    return pooled(pair, values, np.max)


@pytest.fixture(params=list(tiny.FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tiny.save(request.param, tmp_path / request.param)


def test_every_pair_of_every_family_keeps_the_function(family: Path) -> None:
    kinds = set()
    for work, outputs in works(family):
        for k, pair in enumerate(work.pairs):
            fold(work, pair, random_scale(work, pair, seed=k))
            kinds.add(pair.kind)
        assert difference(work.block.forward(work.hidden), outputs) < 1e-5
    expected = {"opt-350m": 2, "bert": 1, "bert-relu": 2, "roberta": 1, "xlm-roberta": 1}.get(family.name, 3)
    assert len(kinds) >= expected, kinds


def test_scales_really_move(tmp_path: Path) -> None:
    work, _ = works(tiny.save("llama", tmp_path / "llama"))[0]
    for pair in work.pairs:
        producer, consumer = work.weight(pair.producer).copy(), work.weight(pair.consumers[0]).copy()
        scale = fold(work, pair, random_scale(work, pair))
        np.testing.assert_array_equal(work.weight(pair.consumers[0]), consumer * scale)
        assert (work.weight(pair.producer) != producer).any()


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_a_gain_in_16_bits_costs_nothing(tmp_path: Path, stored: torch.dtype) -> None:
    for name in ("llama", "gemma", "gemma2"):
        for work, outputs in works(tiny.save(name, tmp_path / name), stored=stored):
            for pair in work.pairs:
                if pair.kind == "norm":
                    fold(work, pair, random_scale(work, pair))
                    gain = work.module(pair.producer).weight
                    assert torch.equal(gain.to(stored).float(), gain), "a gain that the checkpoint cannot hold"
            # A Gemma gain is stored as a difference from 1: near a scaled gain of 0 half an ulp of that is left over.
            assert difference(work.block.forward(work.hidden), outputs) < (1e-5 if name == "llama" else 1e-4)


def test_statistics_follow(tmp_path: Path) -> None:
    for name in ("llama", "opt", "phi3", "mixtral"):
        for work, _ in works(tiny.save(name, tmp_path / name)):
            for k, pair in enumerate(work.pairs):
                fold(work, pair, random_scale(work, pair, seed=k))
            again = measure(work.block, work.hidden, list(work.schemes), ALL)
            for linear, stats in again.items():
                assert stats.tokens == work.stats[linear].tokens
                for field in ("gram", "absmax", "absmean", "sample"):
                    torch.testing.assert_close(
                        getattr(work.stats[linear], field), getattr(stats, field), rtol=2e-3, atol=1e-4
                    )


def test_consumers_of_one_input_go_on_sharing_their_statistics() -> None:
    work, _ = works(MINI)[0]
    pair = work.pairs[0]
    fold(work, pair, random_scale(work, pair))
    assert len({id(work.stats[name]) for name in pair.consumers}) == 1


def test_a_channel_whose_gain_is_zero_or_would_vanish_or_overflow() -> None:
    work, _ = works(MINI, stored=torch.float16)[0]
    pair = work.pairs[0]
    norm = work.module(pair.producer)
    norm.weight.data[:3] = torch.tensor([0.0, 1.0, 1.0])
    outputs = work.block.forward(work.hidden)
    scale = np.ones(len(norm.weight), np.float32)
    scale[:3] = 3.0, 1e30, 1e-30
    applied = fold(work, pair, scale)
    assert torch.isfinite(norm.weight).all()
    np.testing.assert_array_equal(applied[:2], [3, 1])
    assert norm.weight[2] == torch.finfo(torch.float16).max
    assert difference(work.block.forward(work.hidden), outputs) < 1e-5


def test_refuses_scales_that_do_not_fit() -> None:
    work, outputs = works(MINI)[0]
    norm, value = work.pairs[0], next(pair for pair in work.pairs if pair.kind == "value_output")
    good = np.ones(128, np.float32)
    with pytest.raises(ShapeError, match="q_proj"):
        fold(work, norm, good[:64])
    for bad in (np.nan, np.inf):
        with pytest.raises(NotFiniteError):
            fold(work, norm, np.where(np.arange(128) == 5, bad, good).astype(np.float32))
    for bad in (0.0, -1.0):
        with pytest.raises(RangeError):
            fold(work, norm, np.where(np.arange(128) == 5, bad, good).astype(np.float32))
    with pytest.raises(RangeError, match="one key-value head"):
        fold(work, value, np.arange(1, 129, dtype=np.float32))
    assert torch.equal(work.block.forward(work.hidden), outputs), "a refused fold changed the block"


def test_refuses_tied_weights() -> None:
    work, _ = works(MINI)[0]
    q, o = (work.module(f"{work.block.name}.self_attn.{name}_proj") for name in "qo")
    o.weight = q.weight
    with pytest.raises(ArchitectureError, match="shared by"):
        fold(work, work.pairs[0], np.ones(128, np.float32))
