"""Perplexity, KL and agreement against sums written out in NumPy, and what `evaluate` refuses."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from subbyte.errors import CalibrationError, DtypeError, NotFiniteError, RangeError, ShapeError
from subbyte.evaluate import Reference, evaluate, measure

VOCABULARY = 11


class Bigram(nn.Module):
    """A causal language model in one table: the logits after token t are row t."""

    def __init__(self, seed: int, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Embedding.from_pretrained(torch.randn(vocabulary, vocabulary, generator=generator) * 2)
        self.batches: list[int] = []

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table

    def forward(self, input_ids: Tensor, use_cache: bool) -> Any:
        assert not use_cache
        self.batches.append(len(input_ids))
        return SimpleNamespace(logits=self.table(input_ids))


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(VOCABULARY, (7, 6), generator=torch.Generator().manual_seed(0))


def log_probabilities(table: np.ndarray, token: int) -> np.ndarray:
    row = table[token].astype(np.float64)
    return row - np.log(np.exp(row).sum())


def by_hand(model: Bigram, tokens: Tensor, baseline: Bigram | None) -> tuple[float, float, float]:
    nll, kl, same, count = 0.0, 0.0, 0, 0
    for window in tokens.tolist():
        for before, after in pairwise(window):
            log_p = log_probabilities(model.table.weight.numpy(), before)
            nll -= log_p[after]
            count += 1
            if baseline is not None:
                log_b = log_probabilities(baseline.table.weight.numpy(), before)
                kl += sum(np.exp(b) * (b - p) for b, p in zip(log_b, log_p, strict=True))
                same += int(np.argmax(log_b) == np.argmax(log_p))
    return float(np.exp(nll / count)), kl / count, same / count


def test_agrees_with_sums_by_hand(tokens: Tensor) -> None:
    model, baseline = Bigram(1), Bigram(2)
    got = evaluate(model, tokens, baseline)
    perplexity, kl, agreement = by_hand(model, tokens, baseline)
    # f32 log-softmax: a few units of 2^-24 on logits of size 10.
    assert got.perplexity == pytest.approx(perplexity, rel=1e-5)
    assert got.kl == pytest.approx(kl, rel=1e-5)
    assert got.top1_agreement == agreement
    assert (got.tokens, got.windows) == (7 * 5, 7)
    assert got.seconds > 0


def test_without_a_baseline_there_is_nothing_to_compare(tokens: Tensor) -> None:
    got = evaluate(Bigram(1), tokens)
    assert (got.kl, got.top1_agreement) == (None, None)


def test_a_model_does_not_differ_from_itself(tokens: Tensor) -> None:
    got = evaluate(Bigram(1), tokens, Bigram(1))
    assert (got.kl, got.top1_agreement) == (0.0, 1.0)


def test_batches_are_bounded_and_do_not_change_the_result(tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(Bigram(1), tokens, Bigram(2))
    monkeypatch.setattr(measure, "LOGITS", 3 * 6 * VOCABULARY)
    model = Bigram(1)
    parts = evaluate(model, tokens, Bigram(2))
    assert model.batches == [3, 3, 1]
    assert (parts.perplexity, parts.kl) == pytest.approx((whole.perplexity, whole.kl), rel=1e-12)


def test_a_reference_runs_once_as_far_as_its_room_goes(tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LOGITS", 2 * 6 * VOCABULARY)
    monkeypatch.setattr(measure, "ROOM", 2 * 2 * 5 * VOCABULARY * 4)
    model, baseline = Bigram(0), Bigram(1)
    reference = Reference(baseline, tokens)
    first, second = (evaluate(model, tokens, reference) for _ in range(2))
    assert baseline.batches == [2, 2, 2, 1, 2, 1], "two batches of two windows have room"
    plain = evaluate(model, tokens, Bigram(1))
    assert (first.kl, first.top1_agreement) == (second.kl, second.top1_agreement) == (plain.kl, plain.top1_agreement)
    with pytest.raises(CalibrationError, match="reference"):
        evaluate(model, tokens[:3], reference)


def test_reports_progress(tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LOGITS", 1)
    seen: list[tuple[int, int, float]] = []
    got = evaluate(Bigram(1), tokens, progress=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(i + 1, 7) for i in range(7)]
    assert seen[-1][2] == got.perplexity


def test_not_finite_logits_name_the_window(tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LOGITS", 1)
    tokens = tokens % 10
    tokens[3, 2] = 10
    model = Bigram(1)
    model.table.weight[10, 4] = torch.nan
    with pytest.raises(NotFiniteError, match="logits of the model: given NaN or infinity in window 3"):
        evaluate(model, tokens)
    with pytest.raises(NotFiniteError, match="logits of the baseline"):
        evaluate(Bigram(2), tokens, model)


def test_a_ruined_model_has_infinite_perplexity_and_no_crash() -> None:
    model = Bigram(1)
    model.table.weight.fill_(0)
    model.table.weight[:, 0] = 1e4
    assert evaluate(model, torch.ones(1, 4, dtype=torch.int64)).perplexity == float("inf")


@pytest.mark.parametrize("shape", [(0, 6), (3, 1), (3,)])
def test_refuses_windows_without_predictions(shape: tuple[int, ...]) -> None:
    with pytest.raises(CalibrationError):
        evaluate(Bigram(1), torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("token", [-1, VOCABULARY])
def test_refuses_tokens_that_the_model_does_not_know(tokens: Tensor, token: int) -> None:
    tokens[2, 3] = token
    with pytest.raises(RangeError, match=f"token {token}"):
        evaluate(Bigram(1), tokens)


def test_refuses_a_baseline_with_another_vocabulary(tokens: Tensor) -> None:
    with pytest.raises(ShapeError, match="12 logits"):
        evaluate(Bigram(1), tokens, Bigram(2, VOCABULARY + 1))


def test_refuses_tokens_that_are_no_integers(tokens: Tensor) -> None:
    with pytest.raises(DtypeError):
        evaluate(Bigram(1), tokens.float())
    with pytest.raises(DtypeError):
        evaluate(Bigram(1), tokens.numpy())  # type: ignore[arg-type]
