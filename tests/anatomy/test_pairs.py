"""The data is true: a scale moved along every pair of every family leaves the logits where they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.anatomy.tiny import FAMILIES, opened, outputs, save, tokens

from subbyte.anatomy import Pair, find
from subbyte.modules import materialise, skeleton


def move(model: Any, pair: Pair, scale: torch.Tensor) -> None:
    """The definition of `Pair`, spelled out."""
    for name in (*pair.consumers, *pair.floats):
        model.get_submodule(name).weight.data *= scale
    producer = model.get_submodule(pair.producer)
    if pair.kind == "norm":
        producer.weight.data = (producer.weight + pair.norm_offset) / scale - pair.norm_offset
    else:
        if pair.repeats > 1:
            scale = scale.reshape(pair.kv_heads, pair.repeats, pair.head_dim)[:, 0].reshape(-1)
        producer.weight.data[-len(scale) :] /= scale[:, None]
    if getattr(producer, "bias", None) is not None:
        producer.bias.data[-len(scale) :] /= scale


@pytest.mark.parametrize("family", FAMILIES)
def test_scales_move_along_every_pair(family: str, tmp_path: Path) -> None:
    config, shapes, read = opened(save(family, tmp_path))
    anatomy = find(config, shapes)
    model: Any = skeleton(config, anatomy)
    materialise(model, "", read)
    x = tokens()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        expected = outputs(model, x)
        pairs = [pair for i in range(anatomy.n_blocks) for pair in anatomy.pairs(i, grouped=True)]
        assert pairs
        for pair in pairs:
            before = model.get_submodule(pair.consumers[0]).weight.clone()
            scale = torch.exp(torch.randn(before.shape[1], generator=generator))
            if pair.repeats > 1:
                heads = scale.reshape(pair.kv_heads, pair.repeats, pair.head_dim)
                scale = heads[:, :1].expand_as(heads).reshape(-1)
            move(model, pair, scale)
            assert not torch.equal(model.get_submodule(pair.consumers[0]).weight, before)
        torch.testing.assert_close(outputs(model, x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_of_the_blocks_is_known(family: str, tmp_path: Path) -> None:
    config, shapes, _ = opened(save(family, tmp_path))
    anatomy = find(config, shapes)
    matrices = {n.removesuffix(".weight") for n, s in shapes.items() if n.startswith(anatomy.blocks) and len(s) == 2}
    known = [name for i in range(anatomy.n_blocks) for name in anatomy.linears(i)]
    routers = {name for i in range(anatomy.n_blocks) for pair in anatomy.pairs(i) for name in pair.floats}
    assert len(known) == len(set(known))
    assert set(known) | routers == matrices
    fused = [name for i in range(anatomy.n_blocks) for group in anatomy.fused(i) for name in group]
    assert set(fused) <= set(known)
