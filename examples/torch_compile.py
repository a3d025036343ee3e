"""Kernels inside a torch model under torch.compile: a linear layer with W4A8 codes.

    python examples/torch_compile.py

Every kernel is also an operator `torch.ops.subbyte.*` with a fake implementation, so that it is traced, not broken at.
"""

import torch
from torch import Tensor, nn

from subbyte import kernels


class Int8Linear(nn.Module):
    """y = x W^T with 8-bit codes of W by output and 8-bit codes of x by token, found while running."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        scale, _ = kernels.fit_affine(weight, 8)
        self.codes = kernels.quantize_symmetric(weight, scale)
        self.scale = scale.flatten()

    def forward(self, x: Tensor) -> Tensor:
        """[T, I] -> [T, O]"""
        codes, scale = kernels.quantize_tokens(x)
        result: Tensor = kernels.w8a8(codes, self.codes, scale, self.scale)
        return result


torch.manual_seed(0)
weight, x = torch.randn(512, 256), torch.randn(16, 256)
layer = Int8Linear(weight)
compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
exact = x @ weight.T
print(f"relative error: {float((compiled(x) - exact).norm() / exact.norm()):.4f}")
print(f"compiled and eager agree: {torch.equal(compiled(x), layer(x))}")
