"""The kernels as torch operators: schemas, fakes, tracing, what is detached and what is refused."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from subbyte import kernels
from subbyte.errors import DeviceError, DtypeError, StrideError
from subbyte.kernels._array import ON_CUDA
from tests.calls import calls

torch = pytest.importorskip("torch")
import subbyte.torch  # noqa: E402, F401  (registers torch.ops.subbyte)

CALLS = calls()
every_kernel = pytest.mark.parametrize("kernel", CALLS)


def tensors(kernel: str) -> dict[str, Any]:
    return {name: torch.from_numpy(array.copy()) for name, array in CALLS[kernel].arrays.items()}


@every_kernel
def test_opcheck(kernel: str) -> None:
    torch.library.opcheck(getattr(torch.ops.subbyte, kernel).default, (), {**tensors(kernel), **CALLS[kernel].options})


@pytest.mark.parametrize(
    "kernel",
    [
        "wna16",
        "csr",
        "codebook_gemm",
        "w4a4",
        "w4a8",
        "w8a8",
        "fp8_grouped",
        "int4_fp8",
        "gptq",
        "codebook_descent",
        "gptq_codebook",
        "ldlq",
        "min_max",
        "coordinate_descent",
        "bilevel",
        "nearest_codeword",
        "kmeans",
        "norm_quantize",
        "hadamard_quantize",
    ],
)
def test_opcheck_without_the_optional_arrays(kernel: str) -> None:
    optional = {
        "wna16": ["zero", "order"],
        "csr": ["base"],
        "w4a4": ["x_outliers", "w_outliers", "x_outlier_scale", "w_outlier_scale", "bias"],
        "w4a8": ["level", "zero", "bias"],
        "codebook_gemm": ["residual"],
        "ldlq": ["start"],
        "min_max": ["frozen", "gram", "pull"],
        "w8a8": ["bias"],
        "fp8_grouped": ["bias"],
        "int4_fp8": ["bias"],
        "gptq": ["scale", "zero", "index"],
        "codebook_descent": ["residual", "beside"],
        "gptq_codebook": ["residual"],
        "coordinate_descent": ["start"],
        "bilevel": ["mask"],
        "nearest_codeword": ["weights"],
        "kmeans": ["weights", "start"],
        "norm_quantize": ["bias"],
        "hadamard_quantize": ["signs"],
    }[kernel]
    arrays = {name: tensor for name, tensor in tensors(kernel).items() if name not in optional}
    arrays |= {"zero": None} if kernel == "wna16" else {}
    options = dict(CALLS[kernel].options) | ({"group": 32} if kernel == "gptq" else {})
    torch.library.opcheck(getattr(torch.ops.subbyte, kernel).default, (), {**arrays, **options})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_opcheck_of_sixteen_bit_activations(dtype: Any) -> None:
    arrays = tensors("wna16")
    arrays["x"], arrays["scale"] = arrays["x"].to(dtype), arrays["scale"].to(dtype)
    torch.library.opcheck(torch.ops.subbyte.wna16.default, (), {**arrays, **CALLS["wna16"].options})


@every_kernel
def test_the_operator_and_the_function_take_the_same(kernel: str) -> None:
    import inspect

    schema = getattr(torch.ops.subbyte, kernel).default._schema
    parameters = inspect.signature(getattr(kernels, kernel)).parameters
    assert [argument.name for argument in schema.arguments] == list(parameters)
    for argument, parameter in zip(schema.arguments, parameters.values(), strict=True):
        assert argument.has_default_value() == (parameter.default is not parameter.empty)
        if argument.has_default_value():
            assert argument.default_value == parameter.default


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(dynamic: bool) -> None:
    x = torch.randn(3, 64)
    weight = torch.randn(16, 64)
    scale, zero = kernels.fit_affine(weight, bits=4, group=32, symmetric=False)

    def layer(x: Any, weight: Any, scale: Any, zero: Any) -> Any:
        codes = kernels.quantize_affine(weight, scale, zero, bits=4, group=32)
        words = kernels.pack(codes, bits=4)
        back = kernels.dequantize_affine(kernels.unpack(words, bits=4, cols=weight.shape[1]), scale, zero, group=32)
        rotated = kernels.hadamard(x)
        codes8, scale8 = kernels.quantize_tokens(x)
        integers = kernels.w8a8(codes8, codes8, scale8, scale8)
        return kernels.wna16(x, words, scale, zero, bits=4, group=32), x @ back.T, rotated, integers

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for got, expected in zip(compiled(x, weight, scale, zero), layer(x, weight, scale, zero), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    for rows in (1, 5):
        more = torch.randn(rows, 64)
        assert torch.equal(compiled(more, weight, scale, zero)[0], layer(more, weight, scale, zero)[0])


def test_compiles_what_is_written_in_place() -> None:
    def statistics(gram: Any, x: Any) -> Any:
        kernels.accumulate_gram(gram, x)
        kernels.accumulate_gram(gram, x)
        return gram * 2

    x = torch.randn(5, 8)
    gram, expected = torch.zeros(8, 8), torch.zeros(8, 8)
    torch.testing.assert_close(
        torch.compile(statistics, fullgraph=True, backend="aot_eager")(gram, x), statistics(expected, x)
    )
    assert torch.equal(gram, expected)


def test_shapes_without_data() -> None:
    with torch.device("meta"):
        words = torch.empty(16, 8, dtype=torch.int32)
        out = kernels.wna16(torch.empty(2, 3, 64, dtype=torch.bfloat16), words, torch.empty(16, 2), None, 4, 32)
    assert out.shape == (2, 3, 16)
    assert out.dtype == torch.bfloat16
    assert out.device.type == "meta"


@every_kernel
def test_gradients_stop_here(kernel: str) -> None:
    arrays = tensors(kernel)
    for tensor in arrays.values():
        if tensor.is_floating_point() and kernel != "accumulate_gram":
            tensor.requires_grad_()
    got = getattr(kernels, kernel)(**arrays, **CALLS[kernel].options)
    for result in got if isinstance(got, tuple) else [got]:
        assert result is None or not result.requires_grad


def test_parameters_are_tensors() -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 4))
    assert type(kernels.hadamard(parameter)) is torch.Tensor


def test_transposed_tensors_are_refused() -> None:
    with pytest.raises(StrideError, match="x: given shape"):
        kernels.hadamard(torch.ones(4, 8).T)


def test_what_is_no_tensor_is_refused() -> None:
    arrays = tensors("quantize_affine")
    with pytest.raises(DtypeError, match="scale: given list"):
        kernels.quantize_affine(arrays["x"], arrays["scale"].tolist(), arrays["zero"], bits=4, group=32)
    with pytest.raises(DeviceError, match="zero: given NumPy"):
        kernels.quantize_affine(arrays["x"], arrays["scale"], arrays["zero"].numpy(), bits=4, group=32)


def test_devices_do_not_mix() -> None:
    arrays = tensors("wna16") | {"scale": torch.empty(6, 2, device="meta")}
    with pytest.raises(DeviceError, match="scale: given torch device meta"):
        kernels.wna16(**arrays, **CALLS["wna16"].options)


@every_kernel
def test_a_device_without_the_kernel_is_refused(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(torch.Tensor):
        device = torch.device("xpu", 1)

    arrays = {name: tensor.as_subclass(Elsewhere) for name, tensor in tensors(kernel).items()}
    with pytest.raises(DeviceError, match=rf"{kernel}\(.*xpu:1"):
        getattr(kernels, kernel)(**arrays, **CALLS[kernel].options)


@every_kernel
def test_the_operator_knows_its_devices(kernel: str) -> None:
    there = torch._C._dispatch_has_kernel_for_dispatch_key
    assert there(f"subbyte::{kernel}", "CPU")
    assert there(f"subbyte::{kernel}", "Meta")
    assert there(f"subbyte::{kernel}", "CUDA") == (kernel in ON_CUDA)


def test_cuda_tensors_go_to_the_cuda_kernel() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    arrays = {name: tensor.cuda() for name, tensor in tensors("wna16").items()}
    arrays["x"], arrays["scale"] = arrays["x"].half(), arrays["scale"].half()
    got = kernels.wna16(**arrays, **CALLS["wna16"].options)
    expected = kernels.wna16(**{name: tensor.cpu() for name, tensor in arrays.items()}, **CALLS["wna16"].options)
    assert got.device.type == "cuda"
    torch.testing.assert_close(got.cpu(), expected, rtol=2e-3, atol=2e-2)
    with pytest.raises(DeviceError, match="pack"):
        kernels.pack(torch.ones(2, 4, dtype=torch.uint8, device="cuda"), bits=4)


def test_the_result_outlives_the_inputs() -> None:
    x = torch.randn(64, 64)
    expected = np.asarray(kernels.hadamard(x)).copy()
    got = kernels.hadamard(x.clone())
    del x
    assert np.array_equal(got.numpy(), expected)
    got += 1
    assert sys.getrefcount(got) == 2
