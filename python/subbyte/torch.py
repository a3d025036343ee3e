"""Registers the kernels as torch operators, `torch.ops.subbyte.*`, when imported."""

from subbyte.kernels import _torch as _torch
