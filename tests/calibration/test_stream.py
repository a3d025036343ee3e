from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.anatomy.tiny import FAMILIES, GENERIC, opened, outputs, reference, save, tokens

from subbyte.anatomy import find
from subbyte.calibration import Stream
from subbyte.calibration import stream as stream_module
from subbyte.errors import ArchitectureError, CalibrationError, DtypeError, NotFiniteError


def stream_of(folder: Path) -> Stream:
    config, shapes, read = opened(folder)
    return Stream(config, find(config, shapes), read)


def streamed_logits(stream: Stream, x: torch.Tensor) -> torch.Tensor:
    hidden = stream.embed(x)
    for i in range(stream.anatomy.n_blocks):
        hidden = stream.block(i).forward(hidden)
    return stream.logits(hidden)


@pytest.mark.parametrize("family", [*FAMILIES, *GENERIC])
def test_block_by_block_is_the_whole_model(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = stream_of(save(family, tmp_path))
    x = tokens(sequences=5, length=12)
    with torch.no_grad():
        expected = outputs(reference(tmp_path), x)
    for batch_tokens in (1, 36):  # sequence by sequence; batches of 1, 3 and 1
        monkeypatch.setattr(stream_module, "TOKENS", batch_tokens)
        torch.testing.assert_close(streamed_logits(stream, x), expected, rtol=1e-4, atol=1e-4)
    assert all(parameter.is_meta for parameter in stream._model.parameters()), "the outer model keeps no weights"
    assert stream.anatomy.generic is (family in GENERIC)


def test_the_shared_model(shared: Callable[[str], Path]) -> None:
    folder = shared("models/llama")
    x = tokens(3, 256, 4096)
    with torch.no_grad():
        expected = reference(folder)(x).logits
    got = streamed_logits(stream_of(folder), x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_hidden_states_can_be_reused_in_place(tmp_path: Path) -> None:
    stream = stream_of(save("llama", tmp_path))
    hidden = stream.embed(tokens())
    block = stream.block(0)
    fresh = block.forward(hidden)
    assert block.forward(hidden, out=hidden) is hidden
    torch.testing.assert_close(hidden, fresh, rtol=0, atol=0)


def test_one_sequence_and_one_token(tmp_path: Path) -> None:
    stream = stream_of(save("gemma3", tmp_path))
    for shape in ((1, 1), (1, 9), (2, 3)):
        x = tokens(*shape)
        with torch.no_grad():
            expected = reference(tmp_path)(x).logits
        torch.testing.assert_close(streamed_logits(stream, x), expected, rtol=1e-4, atol=1e-4)


def test_tokens_may_be_numpy(tmp_path: Path) -> None:
    stream = stream_of(save("llama", tmp_path))
    x = tokens()
    torch.testing.assert_close(stream.embed(x.numpy()), stream.embed(x), rtol=0, atol=0)


def test_blocks_are_on_their_own(tmp_path: Path) -> None:
    stream = stream_of(save("mixtral", tmp_path))
    stream.embed(tokens())
    first, second = stream.block(1), stream.block(1)
    name = "model.layers.1.block_sparse_moe.experts.0.w1"
    assert first.name == "model.layers.1"
    assert set(first.linears) == set(stream.anatomy.linears(1))
    first.get(name).weight.data.zero_()  # type: ignore[union-attr, operator]
    assert second.parameters()[f"{name}.weight"].abs().sum() > 0
    skipped = stream.block(1, skip=[name]).parameters()
    assert skipped[f"{name}.weight"].is_meta
    assert sum(parameter.is_meta for parameter in skipped.values()) == 1


def test_only_what_is_needed_is_read(tmp_path: Path) -> None:
    config, shapes, read = opened(save("llama", tmp_path))
    asked: list[str] = []

    def spy(name: str) -> torch.Tensor:
        asked.append(name)
        return read(name)

    stream = Stream(config, find(config, shapes), spy)
    assert asked == []
    hidden = stream.embed(tokens())
    assert "lm_head.weight" not in asked
    assert not any("layers" in name for name in asked)
    asked.clear()
    stream.logits(hidden)
    assert "model.embed_tokens.weight" not in asked
    assert "lm_head.weight" in asked


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (torch.zeros(0, 8, dtype=torch.int64), CalibrationError),
        (torch.zeros(2, 0, dtype=torch.int64), CalibrationError),
        (torch.zeros(8, dtype=torch.int64), CalibrationError),
        (torch.full((1, 4), 96), CalibrationError),
        (torch.full((1, 4), -1), CalibrationError),
        (torch.zeros(1, 4), DtypeError),
        (torch.zeros(1, 4, dtype=torch.int32), DtypeError),
    ],
)
def test_tokens_that_do_not_fit(bad: torch.Tensor, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error, match="tokens"):
        stream_of(save("llama", tmp_path)).embed(bad)


def test_a_damaged_embedding(tmp_path: Path) -> None:
    config, shapes, read = opened(save("llama", tmp_path))
    stream = Stream(config, find(config, shapes), lambda name: read(name) * float("nan"))
    with pytest.raises(NotFiniteError, match="embed_tokens"):
        stream.embed(tokens())


def test_running_a_block_before_embedding(tmp_path: Path) -> None:
    stream = stream_of(save("llama", tmp_path))
    assert stream.block(0).parameters()
    with pytest.raises(CalibrationError, match=r"model\.layers\.0"):
        stream.block(0).forward(torch.zeros(1, 4, 64))


def test_a_generic_model_without_torch_linears(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=64, n_layer=2, n_head=4)).save_pretrained(tmp_path)
    config, shapes, read = opened(tmp_path)
    with pytest.raises(ArchitectureError):
        Stream(config, find(config, shapes), read)


def test_generic_models_whose_blocks_want_more_than_hidden_states(tmp_path: Path) -> None:
    config, shapes, read = opened(save("stablelm", tmp_path))
    stream: Any = Stream(config, find(config, shapes), read)
    outer = stream._model.model
    forward = outer.forward

    def with_token_dependent_argument(input_ids: torch.Tensor, **kwargs: Any) -> Any:
        return forward(input_ids, **{**kwargs, "position_ids": input_ids % 64})

    outer.forward = with_token_dependent_argument
    with pytest.raises(ArchitectureError, match="depend on the tokens"):
        stream.embed(tokens())


def test_equal_inputs_give_equal_results(tmp_path: Path) -> None:
    x = tokens()
    save("gemma2", tmp_path)
    first, second = (streamed_logits(stream_of(tmp_path), x).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
