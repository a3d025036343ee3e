"""Perplexity, KL divergence to a baseline and top-1 agreement over windows of tokens.

Protocol: each window stands alone; its first token (bos) is given, every other is predicted from those before it.
perplexity      exp of the mean negative log-likelihood, over all predicted tokens of all windows
KL              mean over the same positions of KL(baseline || model) = sum_v p_b(v) (log p_b(v) - log p_m(v)), in nats
top-1 agreement share of the positions where both models find the same token most likely
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from subbyte.errors import ArchitectureError, CalibrationError, DtypeError, NotFiniteError, RangeError, ShapeError
from subbyte.evaluate.size import Size, model_size

__all__ = ["Evaluation", "Reference", "evaluate"]

LOGITS = 1 << 23
"""Most logits of one model that exist at a time (32 MiB of f32), unless one window alone needs more."""
ROOM = 1 << 29
"""Bytes of logits that a `Reference` keeps."""


class Reference:
    """A baseline of many evaluations on the same tokens: its logits are computed once as far as 512 MiB hold them.

    model   as `evaluate` takes it
    tokens  i64 [windows, T]: those of every evaluation
    """

    def __init__(self, model: nn.Module, tokens: Tensor) -> None:
        self.model, self.tokens = model, tokens
        self._kept: dict[int, Tensor] = {}
        self._room = ROOM

    def logits(self, first: int, batch: int) -> Tensor:
        """f32 [batch, T - 1, V] of the windows from `first` on."""
        found = self._kept.get(first)
        if found is None or len(found) != batch:
            found = _logits(self.model, self.tokens[first : first + batch])
            if found.nbytes <= self._room:
                self._room -= found.nbytes
                self._kept[first] = found
        return found


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured. `kl` (nats) and `top1_agreement` (0 to 1) are None without a baseline.

    `tokens` counts predictions, `bits_per_weight` what the quantized linears store, `model_bytes` everything.
    """

    perplexity: float
    kl: float | None
    top1_agreement: float | None
    bits_per_weight: float
    model_bytes: int
    tokens: int
    windows: int
    seconds: float


def evaluate(
    model: nn.Module,
    tokens: Tensor,
    baseline: nn.Module | Reference | None = None,
    *,
    size: Size | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Evaluation:
    """Measure `model` on windows of tokens, beside `baseline` if there is one.

    model     called as `model(input_ids=[B, T], use_cache=False).logits`: any causal model of transformers, or `load`'s
    tokens    i64 [windows, T], T >= 2, first column the bos token (`windows` makes them from a text)
    baseline  the same vocabulary; both run on the same batch side by side, so that logits never pile up. A `Reference`
              on these tokens runs once for many evaluations
    size      what to report as size; counted from the modules unless given (a checkpoint may store fewer bytes)
    progress  called after each batch with windows done, windows in all, and the perplexity so far
    Raises CalibrationError (no windows, or of fewer than two tokens), DtypeError, RangeError (a token that the model
    does not know), ShapeError (vocabularies differ), NotFiniteError (NaN or infinite logits, with the window),
    ArchitectureError (an encoder: see `similarity`).
    The batch depends on the shapes alone and sums run in f64, so that equal inputs give equal results.
    """
    if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64:
        raise DtypeError("tokens", getattr(tokens, "dtype", type(tokens).__name__), "an int64 tensor")
    if tokens.ndim != 2 or tokens.shape[0] == 0 or tokens.shape[1] < 2:
        raise CalibrationError(
            "tokens", f"shape {list(tokens.shape)}", "[windows, tokens] with at least one window of two tokens"
        )
    vocabulary = _vocabulary(model, tokens, "model")
    if isinstance(baseline, nn.Module):
        baseline = Reference(baseline, tokens)
    if baseline is not None and not torch.equal(baseline.tokens, tokens):
        raise CalibrationError("tokens", "other tokens than the reference's", "the same", "make a Reference of these")
    if baseline is not None and (known := _vocabulary(baseline.model, tokens, "baseline")) != vocabulary:
        raise ShapeError(
            "baseline",
            f"{known} logits",
            f"{vocabulary}, as the model has",
            "compare a model with the float model that it was made from",
        )
    start = time.perf_counter()
    windows, length = tokens.shape
    batch = max(1, LOGITS // (vocabulary * length))
    nll = kl = 0.0
    predicted = agreed = 0
    with torch.inference_mode():
        for first in range(0, windows, batch):
            rows = tokens[first : first + batch]
            logits = _logits(model, rows)
            reference = None if baseline is None else baseline.logits(first, len(rows))
            for i, row in enumerate(rows):  # window by window: each step below makes further arrays of that size
                log_p = logits[i].log_softmax(-1)
                nll -= _finite(log_p.gather(1, row[1:, None].to(log_p.device)), "model", first + i)
                predicted += length - 1
                if reference is not None:
                    log_b = reference[i].log_softmax(-1).to(log_p.device)
                    _finite(log_b[:, 0], "baseline", first + i)
                    agreed += int((log_b.argmax(-1) == log_p.argmax(-1)).sum())
                    kl += _finite(log_b.exp().mul_(log_b.sub_(log_p)).sum(-1), "model", first + i)
            if progress is not None:
                progress(min(first + batch, windows), windows, _exp(nll / predicted))
    compared = baseline is not None
    size = model_size(model) if size is None else size
    return Evaluation(
        perplexity=_exp(nll / predicted),
        kl=kl / predicted if compared else None,
        top1_agreement=agreed / predicted if compared else None,
        bits_per_weight=size.bits_per_weight,
        model_bytes=size.model_bytes,
        tokens=predicted,
        windows=windows,
        seconds=time.perf_counter() - start,
    )


def _logits(model: nn.Module, rows: Tensor) -> Tensor:
    """f32 [B, T - 1, V]: the predictions of every token but the first."""
    device = next(model.parameters()).device
    output = model(input_ids=rows.to(device), use_cache=False)
    if not hasattr(output, "logits"):
        raise ArchitectureError(
            type(model).__name__,
            "an encoder, which predicts no tokens",
            "a causal language model",
            "compare its embeddings with those of the float model: `subbyte eval OUT --baseline MODEL`",
        )
    logits: Tensor = output.logits
    return logits[:, :-1].float()


def _finite(values: Tensor, who: str, window: int) -> float:
    """The sum, in f64. One logit that is NaN or infinite makes NaN of all log-probabilities of its position."""
    total = float(values.sum(dtype=torch.float64))
    if not math.isfinite(total):
        raise NotFiniteError(
            f"logits of the {who}", f"NaN or infinity in window {window}", "finite numbers", "see `subbyte inspect`"
        )
    return total


def _vocabulary(model: nn.Module, tokens: Tensor, who: str) -> int:
    """Number of tokens that the model embeds, after a check that no other occurs."""
    embedding = cast("Any", model).get_input_embeddings()  # transformers' method, unknown to nn.Module
    known: int = embedding.weight.shape[0]
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= known:
        raise RangeError(
            "tokens",
            f"token {low if low < 0 else high}",
            f"0 to {known - 1}, what the {who} embeds",
            "tokenize with the tokenizer of this model",
        )
    return known


def _exp(mean: float) -> float:
    # A ruined model may pass what f64 can hold: infinity then, which is the truth to within rounding.
    with np.errstate(over="ignore"):
        return float(np.exp(np.float64(mean)))
