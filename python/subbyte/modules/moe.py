"""A mixture of experts whose experts are separate linears, as checkpoints store them."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

__all__ = ["Expert", "MoE"]


def _activation(name: str) -> nn.Module:
    from transformers.activations import ACT2FN

    return cast("nn.Module", ACT2FN[name])


class Expert(nn.Module):
    """One gated MLP: down(activation(gate(x)) * up(x)), its linears under the names that the checkpoint uses."""

    def __init__(self, hidden: int, inner: int, activation: str, names: tuple[str, str, str]) -> None:
        super().__init__()
        self.names = names
        gate, up, down = names
        self.add_module(gate, nn.Linear(hidden, inner, bias=False))
        self.add_module(down, nn.Linear(inner, hidden, bias=False))
        self.add_module(up, nn.Linear(hidden, inner, bias=False))
        self.activation = _activation(activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [n, hidden] -> [n, hidden]."""
        gate, up, down = (getattr(self, name) for name in self.names)
        return cast("torch.Tensor", down(self.activation(gate(x)) * up(x)))


class MoE(nn.Module):
    """Top-k routing over separate experts (Mixtral): transformers 5 fuses them into three-dimensional parameters.

    The router's probabilities are a softmax over all experts in f32; the `chosen` largest are scaled to sum 1. Experts
    are added up in their order, so results do not depend on which tokens come together. An expert that no token reaches
    does not run: hooks on its linears see nothing.

    names  of router, gate, up and down, for Mixtral ("gate", "w1", "w3", "w2"); experts stand below "experts.<n>".
    """

    def __init__(
        self, hidden: int, inner: int, count: int, chosen: int, activation: str, names: tuple[str, str, str, str]
    ) -> None:
        super().__init__()
        self.chosen = chosen
        self.router = names[0]
        self.add_module(self.router, nn.Linear(hidden, count, bias=False))
        self.experts = nn.ModuleList(Expert(hidden, inner, activation, names[1:]) for _ in range(count))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden [..., H] -> the same shape and dtype."""
        x = hidden.reshape(-1, hidden.shape[-1])
        logits = getattr(self, self.router)(x)
        weight, index = torch.topk(torch.softmax(logits.float(), dim=-1), self.chosen, dim=-1)
        weight = weight / weight.sum(dim=-1, keepdim=True)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(index == number)
            if token.numel():
                out.index_add_(0, token, (expert(x[token]) * weight[token, place, None]).to(out.dtype))
        return out.reshape(hidden.shape)

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"experts={len(self.experts)}, chosen={self.chosen}"
