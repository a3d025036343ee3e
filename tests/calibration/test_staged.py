"""Staged: the statistics of passes of their own, and the outputs of a forward pass, whatever happens in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.anatomy.tiny import opened, save, tokens
from torch import nn

from subbyte.anatomy import find
from subbyte.calibration import Block, Staged, Stream, measure
from subbyte.errors import NotFiniteError

WANTED = ("gram", "absmax")


def halve(block: Block, name: str) -> None:
    """Stands for rounding in place."""
    linear = block.linears[name]
    linear.weight = nn.Parameter(linear.weight / 2, requires_grad=False)  # type: ignore[operator]


def exchange(block: Block, name: str) -> None:
    """Stands for another module that runs on codes."""
    block.replace(name, nn.Sequential(block.get(name), nn.Hardtanh(-0.01, 0.01)))


@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["passes of their own", "waiting"])
@pytest.mark.parametrize("change", [halve, exchange])
@pytest.mark.parametrize("family", ["llama", "opt", "mixtral"])
def test_measures_what_passes_of_their_own_measure(
    family: str, change: Callable[[Block, str], None], limit: int, tmp_path: Path
) -> None:
    config, shapes, read = opened(save(family, tmp_path))
    stream = Stream(config, find(config, shapes), read)
    inputs = stream.embed(tokens())
    plain, block, hidden = stream.block(0), stream.block(0), inputs.clone()
    staged = Staged(block, hidden, out=hidden, limit=limit)
    for stage in stream.anatomy.stages(0):
        expected, found = measure(plain, inputs, stage, WANTED), staged.measure(stage, WANTED)
        assert list(found) == stage
        for name in stage:
            assert found[name].tokens == expected[name].tokens
            torch.testing.assert_close(found[name].gram, expected[name].gram, rtol=0, atol=0)
            torch.testing.assert_close(found[name].absmax, expected[name].absmax, rtol=0, atol=0)
        for name in stage:
            change(plain, name)
            change(block, name)
    outputs = staged.finish()
    assert outputs is hidden
    torch.testing.assert_close(outputs, plain.forward(inputs), rtol=0, atol=0)
    torch.testing.assert_close(block.forward(inputs), outputs, rtol=0, atol=0)


@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["passes of their own", "waiting"])
@pytest.mark.parametrize("family", ["llama", "opt", "mixtral"])
def test_drift_from_the_float_model(family: str, limit: int, tmp_path: Path) -> None:
    """Inputs of every linear beside those of a float block that has inputs of its own; experts have no drift."""
    config, shapes, read = opened(save(family, tmp_path))
    stream = Stream(config, find(config, shapes), read)
    inputs = stream.embed(tokens())
    block, twin = stream.block(0), stream.block(0)
    exact = inputs + 0.1 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
    outputs = twin.forward(exact)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in stream.anatomy.linears(0)}
    twin.observe(exact, {name: inputs_of.append for name, inputs_of in seen.items()})
    staged = Staged(block, inputs.clone(), limit=limit, twin=(twin, exact))
    for stage in stream.anatomy.stages(0):
        given: dict[str, list[torch.Tensor]] = {name: [] for name in stage}
        block.observe(inputs, {name: given[name].append for name in stage})
        found = staged.measure(stage, {"gram", "drift"})
        for name in stage:
            x = torch.cat(given[name]).double()
            expected = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
            if "experts" not in name:
                expected = (torch.cat(seen[name]).double() - x).T @ x
            drift, gram = found[name].drift, found[name].gram
            assert drift is not None
            assert gram is not None
            torch.testing.assert_close(drift, expected.float(), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(gram, (x.T @ x).float(), rtol=1e-4, atol=1e-4)
            assert "experts" in name or float(drift.abs().max()) > 1e-3
            halve(block, name)
    torch.testing.assert_close(staged.finish(), block.forward(inputs), rtol=0, atol=0)
    torch.testing.assert_close(exact, outputs, rtol=0, atol=0)


def test_runs_nothing_twice(tmp_path: Path) -> None:
    config, shapes, read = opened(save("llama", tmp_path))
    stream = Stream(config, find(config, shapes), read)
    hidden = stream.embed(tokens())
    block, calls = stream.block(0), dict.fromkeys(stream.anatomy.linears(0), 0)
    for name, linear in block.linears.items():
        linear.register_forward_pre_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    staged = Staged(block, hidden)
    for stage in stream.anatomy.stages(0):
        staged.measure(stage, WANTED)
    staged.finish()
    batches = sum(1 for _ in block.calls(hidden))
    # The one that waits is called once by the block and once more, rounded, when it goes on.
    assert set(calls.values()) <= {batches, 2 * batches}
    assert sum(calls.values()) == batches * (len(calls) + len(stream.anatomy.stages(0)))


def test_a_linear_without_tokens_is_passed(tmp_path: Path) -> None:
    """An expert alone in its stage that some sequences do not reach: they run on, and start again."""
    config, shapes, read = opened(save("mixtral", tmp_path))
    stream = Stream(config, find(config, shapes), read)
    hidden = stream.embed(tokens())[:, :1].contiguous()
    stream.embed(tokens()[:, :1])
    block, plain = stream.block(0), stream.block(0)
    staged = Staged(block, hidden)
    for expert in range(4):
        name = f"model.layers.0.block_sparse_moe.experts.{expert}.w2"
        found, expected = staged.measure([name], WANTED)[name], measure(plain, hidden, [name], WANTED)[name]
        assert found.tokens == expected.tokens
        torch.testing.assert_close(found.gram, expected.gram, rtol=0, atol=0)
        halve(block, name)
        halve(plain, name)
    torch.testing.assert_close(staged.finish(), plain.forward(hidden), rtol=0, atol=0)


def test_overflow_inside_a_block_is_named(tmp_path: Path) -> None:
    config, shapes, read = opened(save("llama", tmp_path))
    stream = Stream(config, find(config, shapes), read)
    hidden = stream.embed(tokens())
    block = stream.block(0)
    staged = Staged(block, hidden)
    staged.measure(stream.anatomy.stages(0)[0], WANTED)
    block.parameters()["model.layers.0.mlp.up_proj.weight"].data.fill_(3e38)
    with np.errstate(all="ignore"), pytest.raises(NotFiniteError, match=r"model\.layers\.0\.mlp\.down_proj"):
        staged.measure(["model.layers.0.mlp.down_proj"], WANTED)
