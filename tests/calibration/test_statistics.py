from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.anatomy.tiny import opened, save, tokens

from subbyte.anatomy import find
from subbyte.calibration import Collector, Statistics, Stream, gather, measure
from subbyte.calibration.statistics import SAMPLES
from subbyte.errors import NotFiniteError, ShapeError

ALL = ("gram", "absmax", "absmean", "sample", "drift")


def batches(*sizes: int, channels: int = 24) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, channels, generator=generator) for n in sizes]


def collected(parts: list[torch.Tensor], wanted: tuple[str, ...] = ALL) -> Statistics:
    collector = Collector("a.linear", parts[0].shape[1], wanted)  # type: ignore[arg-type]
    for part in parts:
        collector(part)
    return collector.result()


def test_sums_do_not_depend_on_the_batches() -> None:
    parts = batches(7, 0, 1, 40)
    x = torch.cat(parts).double()
    stats = collected(parts)
    assert stats.tokens == 48
    for got, expected in (
        (stats.gram, x.T @ x),
        (stats.absmax, x.abs().amax(0)),
        (stats.absmean, x.abs().mean(0)),
        (stats.sample, x),
        (stats.hessian, 2 / 48 * x.T @ x),
    ):
        assert got is not None
        torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wanted", [(), *[(name,) for name in ALL]])
def test_only_what_is_wanted(wanted: tuple[str, ...]) -> None:
    stats = collected(batches(5), wanted)
    assert {name for name in ALL if getattr(stats, name) is not None} == set(wanted)
    if "gram" not in wanted:
        with pytest.raises(ShapeError, match="gram"):
            _ = stats.hessian


@pytest.mark.parametrize("sizes", [(511,), (512,), (1023,), (1024,), (1100,), (100,) * 11, (3000, 1, 70), (1,) * 1100])
def test_a_sample_is_every_nth_token(sizes: tuple[int, ...]) -> None:
    parts = batches(*sizes, channels=2)
    x = torch.cat(parts)
    stride = 1
    while -(-len(x) // stride) >= 2 * SAMPLES:
        stride *= 2
    stats = collected(parts, ("sample",))
    assert stats.sample is not None
    torch.testing.assert_close(stats.sample, x[::stride], rtol=0, atol=0)


def test_a_linear_without_tokens() -> None:
    stats = collected(batches(0))
    assert stats.tokens == 0
    assert stats.sample is not None
    assert stats.sample.shape == (0, 24)
    with pytest.raises(ShapeError, match="0 tokens"):
        _ = stats.hessian


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_activations_that_are_not_finite_are_named(bad: float) -> None:
    (x,) = batches(4)
    x[2, 3] = bad
    for wanted in ALL:
        with pytest.raises(NotFiniteError, match=r"a\.linear"):
            collected([x], (wanted,))


def test_half_precision_is_summed_in_f32() -> None:
    (x,) = batches(50)
    stats = collected([x.half()])
    assert stats.gram is not None
    assert stats.gram.dtype == torch.float32
    torch.testing.assert_close(stats.gram, x.half().float().T @ x.half().float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "opt", "mixtral"])
def test_gathered_while_the_block_runs(family: str, tmp_path: Path) -> None:
    config, shapes, read = opened(save(family, tmp_path))
    stream = Stream(config, find(config, shapes), read)
    hidden = stream.embed(tokens())
    block, names = stream.block(0), stream.anatomy.linears(0)
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    expected = block.forward(hidden, {name: kept.append for name, kept in inputs.items()})
    stats, out = gather(block, hidden, names, ALL)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
    again = measure(block, hidden, names, ("gram",))
    assert list(stats) == names
    for name in names:
        x = torch.cat([torch.empty(0, block.linears[name].in_features), *inputs[name]])  # type: ignore[call-overload]
        gram = stats[name].gram
        assert gram is not None
        assert stats[name].tokens == again[name].tokens == len(x)
        torch.testing.assert_close(gram, x.T @ x, rtol=1e-4, atol=1e-4)
        assert again[name].sample is None
    for group in block.fused:
        assert len({id(stats[name]) for name in group}) == 1, "one tensor is measured once"
    assert len({id(one) for one in stats.values()}) == len(names) - sum(len(group) - 1 for group in block.fused)


def test_gather_in_place_and_in_part(tmp_path: Path) -> None:
    config, shapes, read = opened(save("llama", tmp_path))
    stream = Stream(config, find(config, shapes), read)
    hidden = stream.embed(tokens())
    block = stream.block(0)
    expected = block.forward(hidden)
    stats, out = gather(block, hidden, stream.anatomy.stages(0)[1], ("absmax",), out=hidden)
    assert list(stats) == ["model.layers.0.self_attn.o_proj"]
    assert out is hidden
    torch.testing.assert_close(hidden, expected, rtol=0, atol=0)


def test_routed_tokens_add_up(tmp_path: Path) -> None:
    config, shapes, read = opened(save("mixtral", tmp_path))
    stream = Stream(config, find(config, shapes), read)
    hidden = stream.embed(tokens())
    stats = measure(stream.block(0), hidden, stream.anatomy.linears(0), ("absmean",))
    routed = [stats[f"model.layers.0.block_sparse_moe.experts.{n}.w2"].tokens for n in range(4)]
    assert sum(routed) == 2 * hidden.shape[0] * hidden.shape[1]


def test_overflow_inside_a_block_is_named(tmp_path: Path) -> None:
    config, shapes, read = opened(save("llama", tmp_path))
    stream = Stream(config, find(config, shapes), read)
    hidden = stream.embed(tokens())
    block = stream.block(0)
    block.parameters()["model.layers.0.mlp.up_proj.weight"].data.fill_(3e38)
    with np.errstate(all="ignore"), pytest.raises(NotFiniteError, match=r"model\.layers\.0\.mlp\.down_proj"):
        gather(block, hidden, stream.anatomy.linears(0), ("absmax",))
