"""Perplexity of a recipe on the shared models, by the protocol of ../shared/data/README.md, measured once each."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

import subbyte
from subbyte.calibration import windows
from subbyte.checkpoint import Source, formats, load
from subbyte.modules import QuantizedLinear, replace_linear
from subbyte.pipeline import Result
from subbyte.recipe import Recipe

LENGTH, WINDOWS = 256, 60


class Quality:
    """Over the first 60 windows of WikiText-2's test text: `loss(recipe)`, the mean negative log-likelihood, and
    `divergence(recipe)`, the mean Kullback-Leibler divergence from the float model's predictions, far less noisy.

    Weights alone are put back dequantized, whose products torch computes faster than codes are multiplied (other tests
    show that both are the same); where inputs are quantized too, the model runs on its codes.
    """

    def __init__(self, shared: Callable[[str], Path], model: str) -> None:
        self.folder = shared(f"models/{model}")
        self.text = shared("data/calibration.txt")
        self._tokens = windows(shared("data/wikitext2-test.txt"), self.folder, LENGTH, WINDOWS).split(10)
        self._float = load(self.folder)
        self._exact = [self._log_probabilities(self._float, batch) for batch in self._tokens]
        self.float_loss, _ = self._measure(self._float)
        self._measured = cache(self._quantized)

    def loss(self, recipe: Recipe, samples: int = 128) -> float:
        """Nats a token."""
        return self._measured(recipe, samples)[0]

    def divergence(self, recipe: Recipe, samples: int = 128) -> float:
        """Nats a token."""
        return self._measured(recipe, samples)[1]

    def _quantized(self, recipe: Recipe, samples: int) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out"
            result = subbyte.quantize(
                self.folder, recipe, out, calibration=self.text, samples=samples, seq_len=LENGTH, verify=False
            )
            assert isinstance(result, Result)
            return self._measure(self._put_back(out))

    def _put_back(self, out: Path) -> Any:
        model, source = copy.deepcopy(self._float), Source.open(out)
        form = formats.detect(source.config)
        assert form is not None
        quantized = form.layers(source)
        for name in quantized:
            layer = form.read(source, name)
            if layer.activation is None:
                model.get_submodule(name).weight.data.copy_(torch.from_numpy(layer.weight.dequantize()))
            else:
                replace_linear(model, name, QuantizedLinear(layer))
        for name, parameter in model.named_parameters():
            if name.removesuffix(".weight") not in quantized:
                parameter.data.copy_(source.read(name))
        return model

    @staticmethod
    @torch.no_grad()
    def _log_probabilities(model: Any, batch: torch.Tensor) -> torch.Tensor:
        """[predicted tokens, V]"""
        return torch.log_softmax(model(input_ids=batch, use_cache=False).logits[:, :-1].flatten(0, 1), -1)

    def _measure(self, model: Any) -> tuple[float, float]:
        loss, divergence, predicted = 0.0, 0.0, 0
        for batch, exact in zip(self._tokens, self._exact, strict=True):
            found = exact if model is self._float else self._log_probabilities(model, batch)
            loss += float(torch.nn.functional.nll_loss(found, batch[:, 1:].flatten(), reduction="sum"))
            divergence += float(torch.nn.functional.kl_div(found, exact, reduction="sum", log_target=True))
            predicted += len(found)
        return loss / predicted, divergence / predicted


def removed(quality: Quality, recipe: Recipe, baseline: Recipe, samples: int = 128) -> float:
    """Which share of the baseline's increase of log-perplexity over the float model a recipe takes away."""
    increase = quality.loss(baseline) - quality.float_loss
    return 1 - (quality.loss(recipe, samples) - quality.float_loss) / increase


def perplexity(loss: float) -> float:
    return math.exp(loss)
