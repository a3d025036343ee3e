from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.anatomy.tiny import opened, reference, save
from torch import nn

from subbyte.anatomy import find
from subbyte.modules import MoE, materialise, replace_linear, skeleton


def random_moe(count: int = 4, chosen: int = 2) -> MoE:
    torch.manual_seed(0)
    return MoE(16, 24, count, chosen, "silu", ("gate", "w1", "w3", "w2"))


def test_equals_the_fused_experts_of_transformers(tmp_path: Path) -> None:
    config, shapes, read = opened(save("mixtral", tmp_path))
    model = skeleton(config, find(config, shapes))
    materialise(model, "", read)
    ours: Any = model.get_submodule("model.layers.1.block_sparse_moe")
    assert isinstance(ours, MoE)
    theirs = reference(tmp_path).model.layers[1].mlp
    x = torch.randn(3, 7, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_against_a_plain_loop() -> None:
    moe = random_moe()
    x = torch.randn(5, 16)
    p = torch.softmax(x @ moe.gate.weight.T, -1)
    expected = torch.zeros_like(x)
    for t in range(5):
        best = sorted(range(4), key=lambda e: -p[t, e])[:2]
        for e in best:
            expert = moe.experts[e]
            inner = nn.functional.silu(expert.w1(x[t])) * expert.w3(x[t])
            expected[t] += p[t, e] / p[t, best].sum() * expert.w2(inner)
    torch.testing.assert_close(moe(x), expected)


def test_experts_without_tokens_do_not_run() -> None:
    moe = random_moe(count=4, chosen=1)
    moe.gate.weight.data.zero_()
    moe.gate.weight.data[2, 0] = 1.0
    seen: list[int] = []
    for number, expert in enumerate(moe.experts):
        expert.w1.register_forward_hook(lambda *_, n=number: seen.append(n))
    moe(torch.ones(6, 16))
    assert seen == [2]
    assert moe(torch.ones(0, 16)).shape == (0, 16)


def test_results_of_a_token_do_not_depend_on_the_others() -> None:
    moe = random_moe()
    x = torch.randn(9, 16)
    torch.testing.assert_close(moe(x)[4:5], moe(x[4:5]))


def test_replacing_an_expert_reaches_the_running_block(tmp_path: Path) -> None:
    config, shapes, read = opened(save("mixtral", tmp_path))
    model: Any = skeleton(config, find(config, shapes))
    materialise(model, "", read)
    block = copy.deepcopy(model.model.layers[0])
    assert block.mlp is block.block_sparse_moe
    assert block.mlp is not model.model.layers[0].mlp
    assert len(dict(block.named_parameters(remove_duplicate=False))) == len(dict(block.named_parameters()))
    before = block.mlp(torch.ones(1, 64))
    for n in range(4):
        replace_linear(block, f"block_sparse_moe.experts.{n}.w2", nn.Linear(96, 64))
    assert not torch.equal(block.mlp(torch.ones(1, 64)), before)


def test_shown_with_its_numbers() -> None:
    assert "experts=4, chosen=2" in repr(random_moe())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    assert random_moe().to(dtype)(torch.ones(2, 16, dtype=dtype)).dtype == dtype
