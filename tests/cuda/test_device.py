"""The CUDA kernels on a real GPU; tests/cuda/test_emulated.py checks the same arithmetic where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from subbyte import cuda
from subbyte.cuda import loader
from subbyte.errors import DeviceError, SubbyteError
from tests.cuda.test_emulated import DTYPES, SHAPES, expected, pack, problem

try:
    DEVICES = cuda.devices()
except SubbyteError as error:
    pytest.skip(f"needs a GPU: {error}", allow_module_level=True)

LARGER = [(1, 4096, 4096, 128), (16, 1000, 2048, 64), (200, 264, 1024, 128)]


@pytest.fixture(autouse=True)
def built(ptx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PTX of the sources as they are, not of the last build."""
    if not torch.cuda.is_available():
        pytest.skip("needs a torch that sees the GPU")
    monkeypatch.setattr(loader, "FOLDER", ptx)


def to_torch(inputs: list, bits: int) -> list[torch.Tensor | None]:
    x, codes, scale, zero = inputs
    dtype = torch.float16 if x.dtype == np.float16 else torch.bfloat16
    half = [torch.from_numpy(array.view(np.int16)).view(dtype).cuda() for array in (x, scale)]
    words = torch.from_numpy(pack(codes, bits).view(np.int32)).cuda()
    return [half[0], words, half[1], None if zero is None else torch.from_numpy(zero).cuda()]


@pytest.mark.parametrize("shape", SHAPES + LARGER, ids=str)
@pytest.mark.parametrize("asym", [False, True], ids=["sym", "asym"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("bits", range(1, 9))
def test_wna16_agrees_with_numpy(bits: int, dtype: np.dtype, asym: bool, shape: tuple[int, int, int, int]) -> None:
    inputs = problem(bits, dtype, asym, shape)
    y, bound = expected(*inputs, bits)
    given = to_torch(inputs, bits)
    got = cuda.wna16(*given, bits, shape[3])
    assert got.dtype == given[0].dtype
    assert (abs(got.double().cpu().numpy() - y) <= bound).all()
    assert torch.equal(got, cuda.wna16(*given, bits, shape[3]))


def test_streams_and_graphs() -> None:
    """Runs on torch's current stream, and a graph that holds it sees new activations."""
    inputs = problem(4, DTYPES["f16"], True, (4, 256, 512, 128))
    given = to_torch(inputs, 4)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        want = cuda.wna16(*given, 4, 128)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        held = cuda.wna16(*given, 4, 128)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(held, want)
    given[0].zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert not held.any()


def test_arrays_on_two_sides() -> None:
    given = to_torch(problem(4, DTYPES["f16"], False, (4, 8, 32, 32)), 4)
    with pytest.raises(DeviceError, match="words: given the CPU"):
        cuda.wna16(given[0], given[1].cpu(), *given[2:], 4, 32)
