"""How near the embeddings of an encoder stay to those of the float model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from subbyte.errors import ArchitectureError, CalibrationError, NotFiniteError, ShapeError
from subbyte.evaluate.size import Size, model_size

__all__ = ["Similarity", "embeddings", "similarity"]

BATCH = 64
"""Texts that run together."""


@dataclass(frozen=True)
class Similarity:
    """What `similarity` measured: the mean and the lowest cosine over the texts; sizes as in `Evaluation`."""

    cosine: float
    lowest: float
    bits_per_weight: float
    model_bytes: int
    tokens: int
    windows: int
    seconds: float


def embeddings(model: nn.Module, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Text embeddings [S, H] f32, of length 1: the mean of the last hidden states over a text's tokens.

    model   an encoder of transformers, or `load`'s
    tokens  i64 [S, T]
    mask    [S, T], 0 where a text is padded; None: nowhere
    Raises ArchitectureError (no encoder), CalibrationError (no tokens), ShapeError, NotFiniteError.
    """
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise CalibrationError("tokens", f"shape {list(tokens.shape)}", "[texts, tokens], both at least 1")
    if mask is not None and mask.shape != tokens.shape:
        raise ShapeError("mask", list(mask.shape), list(tokens.shape))
    mask = torch.ones_like(tokens) if mask is None else mask
    found = []
    with torch.inference_mode():
        for rows, kept in zip(torch.split(tokens, BATCH), torch.split(mask, BATCH), strict=True):
            output = model(input_ids=rows, attention_mask=kept)
            if not hasattr(output, "last_hidden_state"):
                raise ArchitectureError(type(model).__name__, "no hidden states", "an encoder", "see `evaluate`")
            hidden = output.last_hidden_state.float() * kept[:, :, None]
            found.append(nn.functional.normalize(hidden.sum(1), dim=1))
    result = torch.cat(found)
    if not torch.isfinite(result).all():
        raise NotFiniteError("embeddings", "NaN or infinity", "finite numbers", "see `subbyte inspect`")
    return result


def similarity(
    model: nn.Module, baseline: nn.Module, tokens: Tensor, mask: Tensor | None = None, *, size: Size | None = None
) -> Similarity:
    """The cosine between each text's embedding by `model` and by `baseline`; arguments and errors of `embeddings`."""
    start = time.perf_counter()
    pairs = [embeddings(one, tokens, mask) for one in (model, baseline)]
    cosines = cast("Any", pairs[0] * pairs[1]).sum(1, dtype=torch.float64)
    size = model_size(model) if size is None else size
    return Similarity(
        cosine=float(cosines.mean()),
        lowest=float(cosines.min()),
        bits_per_weight=size.bits_per_weight,
        model_bytes=size.model_bytes,
        tokens=tokens.numel() if mask is None else int(mask.sum()),
        windows=len(tokens),
        seconds=time.perf_counter() - start,
    )
