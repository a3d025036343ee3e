"""Bytes told from a shape are those of the tensor that a solver makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from subbyte.calibration import Statistics
from subbyte.schemes import Scheme, stored_bytes
from subbyte.solvers import HalfQuadratic, Ldlq, Nearest, PowerSearch, Solver, Vptq

WEIGHT = np.random.default_rng(11).standard_normal((36, 80)).astype(np.float32)  # rows of words that are not full
VECTORS = Vptq(permute=False, iterations=2, tune=0)


@pytest.mark.parametrize(
    ("scheme", "solver"),
    [
        *((f"int{bits}/g16/asym/f16", Nearest()) for bits in (2, 3, 4, 5, 8)),
        ("int3/channel/f32", Nearest()),
        ("int4/tensor/bf16", Nearest()),
        ("int5/g12/by_input/asym/f16", Nearest()),
        ("int3/g16/asym/float_zero/f16", HalfQuadratic()),
        ("int3/g16/asym/float_zero/s3z3r12/f16", HalfQuadratic()),
        ("nf4/g16/f16", Nearest()),
        ("power3/channel/f16", PowerSearch()),
        ("e8p2/tensor/f32", Ldlq(incoherence="none")),
        ("e8p3/tensor/f32", Ldlq(incoherence="none")),
        ("v2k128/tensor/f16", VECTORS),
        ("v5k16/tensor/f32", VECTORS),
        ("v4k16r8c3o6/tensor/f16", VECTORS),
        ("v2k16o10v4k8n/tensor/f16", VECTORS),
    ],
)
def test_counts_what_is_stored(scheme: str, solver: Solver) -> None:
    parsed = Scheme.parse(scheme)
    draw = np.random.default_rng(3).standard_normal((200, 80))
    stats = Statistics(tokens=200, gram=torch.from_numpy((draw.T @ draw).astype(np.float32)))
    tensor = solver.solve(WEIGHT, parsed, stats).tensor
    assert str(tensor.scheme) == scheme
    assert stored_bytes(parsed, WEIGHT.shape) == tensor.nbytes  # type: ignore[arg-type]
