from __future__ import annotations

import pytest
import torch
from tests.anatomy.tiny import opened, save, tokens
from torch import nn

from subbyte.anatomy import find
from subbyte.calibration import Block, Stream
from subbyte.errors import ShapeError, UnknownNameError


@pytest.fixture(scope="module")
def opening(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stream, torch.Tensor]:
    config, shapes, read = opened(save("llama", tmp_path_factory.mktemp("llama")))
    stream = Stream(config, find(config, shapes), read)
    return stream, stream.embed(tokens())


@pytest.fixture
def block(opening: tuple[Stream, torch.Tensor]) -> Block:
    return opening[0].block(0)


@pytest.fixture
def hidden(opening: tuple[Stream, torch.Tensor]) -> torch.Tensor:
    return opening[1].clone()


UP = "model.layers.0.mlp.up_proj"
DOWN = "model.layers.0.mlp.down_proj"


def test_observers_get_every_token_once(block: Block, hidden: torch.Tensor) -> None:
    seen: dict[str, list[torch.Tensor]] = {UP: [], DOWN: []}
    with_observers = block.forward(hidden, {name: kept.append for name, kept in seen.items()})
    torch.testing.assert_close(with_observers, block.forward(hidden), rtol=0, atol=0)
    up, down = (torch.cat(seen[name]) for name in (UP, DOWN))
    assert up.shape == (60, 64)
    assert down.shape == (60, 96)
    gate, linear = block.get("model.layers.0.mlp.gate_proj"), block.get(UP)
    torch.testing.assert_close(down, nn.functional.silu(gate(up)) * linear(up))
    for kept in seen.values():
        kept.clear()
    block.observe(hidden, {UP: seen[UP].append})
    torch.testing.assert_close(torch.cat(seen[UP]), up, rtol=0, atol=0)
    block.forward(hidden)
    assert len(torch.cat(seen[UP])) == 60, "observers are gone afterwards"


def test_an_observer_that_raises_is_removed(block: Block, hidden: torch.Tensor) -> None:
    def fail(_: torch.Tensor) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        block.forward(hidden, {UP: fail})
    block.forward(hidden)


@pytest.mark.parametrize("inner", ["self_attn", "mlp", "mlp.down_proj", "input_layernorm"])
def test_a_captured_module_runs_again(block: Block, hidden: torch.Tensor, inner: str) -> None:
    name = f"model.layers.0.{inner}"
    outputs: list[torch.Tensor] = []

    def keep(_: nn.Module, __: object, out: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        outputs.append(out[0] if isinstance(out, tuple) else out)

    handle = block.get(name).register_forward_hook(keep)
    calls = block.capture(name, hidden)
    handle.remove()
    expected = torch.cat([out.flatten(0, 1) for out in outputs])
    torch.testing.assert_close(block.run(name, calls), expected, rtol=0, atol=0)


def test_running_again_sees_changed_weights(block: Block, hidden: torch.Tensor) -> None:
    name = "model.layers.0.mlp"
    calls = block.capture(name, hidden)
    before = block.run(name, calls)
    block.parameters()[f"{UP}.weight"].data.mul_(2)
    torch.testing.assert_close(block.run(name, calls), 2 * before)


def test_replaced_linears_run(block: Block, hidden: torch.Tensor) -> None:
    zero = nn.Linear(96, 64, bias=False)
    nn.init.zeros_(zero.weight)
    before = block.forward(hidden)
    block.replace(DOWN, zero)
    assert block.linears[DOWN] is zero
    assert not torch.equal(block.forward(hidden), before)


def test_full_names(block: Block) -> None:
    assert block.get("model.layers.0") is block.module
    assert f"{UP}.weight" in block.parameters()
    assert block.fused[0] == [f"model.layers.0.self_attn.{x}_proj" for x in "qkv"]
    for wrong in ("model.layers.1.mlp", "model.layers.0.nothing", "mlp", "model.layers.00"):
        with pytest.raises(UnknownNameError):
            block.get(wrong)


def test_out_must_have_the_shape_of_hidden(block: Block, hidden: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match="out"):
        block.forward(hidden, out=hidden[:1])
