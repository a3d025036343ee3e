"""wna16 beside torch (decoding the weight and multiplying; multiplying one that was decoded before) and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.oracles.case import Case
from tests.oracles.wna16 import large

from subbyte import kernels

CASES = [
    *(large(rows, 4096, 4096, bits, 128) for bits in (2, 3, 4, 8) for rows in (1, 16, 128)),
    *(large(rows, 16384, 4096, 4, 32) for rows in (1, 16, 128, 512)),
]


def subbyte(case: Case) -> Any:
    return lambda: kernels.wna16(*case.args, **case.kwargs)


def decode_then_matmul(case: Case) -> Any:
    x, words, scale = map(torch.tensor, case.args[:3])
    bits, group = case.kwargs["bits"], case.kwargs["group"]
    return lambda: x @ decode(words, scale, bits, group, x.shape[1]).T


def matmul_alone(case: Case) -> Any:
    x, words, scale = map(torch.tensor, case.args[:3])
    weight = decode(words, scale, case.kwargs["bits"], case.kwargs["group"], x.shape[1])
    return lambda: x @ weight.T


def onnxruntime(case: Case) -> Any:
    """MatMulNBits in f32, as ours is."""
    return mat_mul_n_bits(case, accuracy=1)


def mat_mul_n_bits(case: Case, accuracy: int) -> Any:
    """onnxruntime's product with the weight of a case of wna16; at accuracy 4 it rounds the inputs to eight bits."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    x, words, scale = case.args[:3]
    (rows, depth), cols, bits, group = x.shape, len(words), case.kwargs["bits"], case.kwargs["group"]
    if bits not in (2, 4, 8):
        pytest.skip("onnxruntime has 2, 4 and 8 bits")
    helper, f32 = onnx.helper, onnx.TensorProto.FLOAT
    options = {"K": depth, "N": cols, "bits": bits, "block_size": group, "accuracy_level": accuracy}
    node = helper.make_node("MatMulNBits", ["x", "words", "scale"], ["y"], domain="com.microsoft", **options)
    codes = words.view(np.uint8).reshape(cols, depth // group, -1)
    weights = [onnx.numpy_helper.from_array(codes, "words"), onnx.numpy_helper.from_array(scale.ravel(), "scale")]
    given, wanted = (helper.make_tensor_value_info(n, f32, [rows, k]) for n, k in (("x", depth), ("y", cols)))
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "product", [given], [wanted], weights)
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    model = helper.make_model(graph, opset_imports=domains, ir_version=10).SerializeToString()
    session = runtime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def decode(words: torch.Tensor, scale: torch.Tensor, bits: int, group: int, columns: int) -> torch.Tensor:
    """[N, K] f32 from a dense bit stream."""
    if 32 % bits == 0:
        codes = words[:, :, None] >> torch.arange(0, 32, bits, dtype=torch.int32) & (1 << bits) - 1
    else:
        first = torch.arange(0, columns * bits, bits)
        wide = torch.nn.functional.pad(words.long() & 0xFFFFFFFF, (0, 1))
        codes = (wide[:, first // 32] | wide[:, first // 32 + 1] << 32) >> first % 32 & (1 << bits) - 1
    grouped = codes.reshape(len(words), -1, group).float() - 2 ** (bits - 1)
    return (scale[:, :, None] * grouped).reshape(len(words), columns)


@pytest.mark.parametrize("who", [subbyte, decode_then_matmul, matmul_alone, onnxruntime])
@pytest.mark.parametrize("case", CASES, ids=str)
def bench_wna16(benchmark: Any, case: Case, who: Any) -> None:
    benchmark.group = f"wna16 {case}"
    benchmark.extra_info.update(bytes=case.bytes, flops=case.flops, limit="read sgemm")
    benchmark(who(case))
