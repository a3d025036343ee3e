"""Every family with all of its linears on codes: the model equals the one with the weights that the codes stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.anatomy.tiny import FAMILIES, opened, outputs, save, tokens
from tests.modules.test_quantized_linear import quantize
from torch import nn

from subbyte.anatomy import find
from subbyte.modules import QuantizedLinear, linear_names, materialise, replace_linear, skeleton
from subbyte.tensors import QuantizedLayer


def pair_of_models(folder: Path, scheme: str) -> tuple[Any, Any]:
    """The same quantized model twice: on codes, and on the floats that they stand for."""
    config, shapes, read = opened(folder)
    anatomy = find(config, shapes)
    models: list[Any] = [skeleton(config, anatomy) for _ in range(2)]
    for model in models:
        materialise(model, "", read)
    for name in (name for i in range(anatomy.n_blocks) for name in anatomy.linears(i)):
        linear: Any = models[1].get_submodule(name)
        tensor = quantize(linear.weight.numpy(), scheme)
        replace_linear(models[0], name, QuantizedLinear(QuantizedLayer(tensor), linear.bias, name))
        linear.weight.data.copy_(torch.from_numpy(tensor.dequantize()))
    assert not set(linear_names(models[0])) & {name for i in range(anatomy.n_blocks) for name in anatomy.linears(i)}
    return models[0], models[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_codes_and_what_they_stand_for_give_the_same_logits(family: str, tmp_path: Path) -> None:
    codes, floats = pair_of_models(save(family, tmp_path), "int4/g32/asym")
    x = tokens()
    with torch.no_grad():
        expected = outputs(floats, x)
        torch.testing.assert_close(outputs(codes, x), expected, rtol=1e-4, atol=1e-4)


def test_generation_goes_token_by_token(tmp_path: Path) -> None:
    codes, floats = pair_of_models(save("llama", tmp_path), "int8/channel")
    x = tokens(1, 4)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(codes.generate(x, **options), floats.generate(x, **options))


def test_a_quantized_model_is_smaller(tmp_path: Path) -> None:
    codes, floats = pair_of_models(save("llama", tmp_path), "int4/g32")

    def size(model: nn.Module) -> int:
        return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))

    linears = sum(p.numel() * 4 for name, p in floats.named_parameters() if "_proj.weight" in name)
    assert size(codes) <= size(floats) - 0.8 * linears
