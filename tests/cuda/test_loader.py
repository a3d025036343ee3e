"""subbyte.cuda without a GPU: which PTX is chosen, what arrays look like, and every way a call can be refused."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from subbyte import cuda
from subbyte.cuda import driver, loader
from subbyte.cuda.arrays import View, exported, view
from subbyte.errors import (
    DependencyError,
    DeviceError,
    DriverError,
    DtypeError,
    RangeError,
    ShapeError,
    StrideError,
    SubbyteError,
    UnknownNameError,
)
from tests.emulator import CUDA


def test_import_needs_neither_torch_nor_cuda_python() -> None:
    code = (
        "import sys, subbyte.cuda; print([name for name in ('torch', 'cuda', 'numpy.testing') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.fixture
def forget() -> Iterator[None]:
    """A driver that is looked for anew, and forgotten again."""
    driver.bindings.cache_clear()
    yield
    driver.bindings.cache_clear()


@pytest.mark.usefixtures("forget")
def test_no_cuda_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(DependencyError, match=r"subbyte\[cuda\]"):
        cuda.devices()


@pytest.mark.usefixtures("forget")
def test_no_driver() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        with pytest.raises(DriverError, match=r"no libcuda\.so\.1.*CUDA 12\.8.*install NVIDIA's driver"):
            cuda.devices()
    else:
        pytest.skip("this machine has a CUDA driver")


def test_chooses_the_exact_architecture_then_the_highest_plain_one() -> None:
    found = [cuda.Ptx("k", name, "8.7", Path(name)) for name in ("sm_80", "sm_90", "sm_90a", "sm_100a")]
    found.append(cuda.Ptx("other", "sm_75", "8.7", Path("sm_75")))
    chosen = {
        (9, 0): "sm_90a",
        (8, 0): "sm_80",
        (8, 9): "sm_80",
        (10, 0): "sm_100a",
        (10, 3): "sm_90",
        (12, 0): "sm_90",
    }
    for capability, architecture in chosen.items():
        assert loader.choose("k", capability, found).architecture == architecture
    with pytest.raises(DriverError, match=r"7\.5.*sm_100a, sm_80, sm_90, sm_90a"):
        loader.choose("k", (7, 5), found)
    with pytest.raises(DriverError, match=r"compile\.py"):
        loader.choose("absent", (9, 0), found)


def test_lists_the_ptx_that_was_built(ptx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "FOLDER", ptx)
    listed = [(found.kernel, found.architecture, found.version) for found in cuda.ptx()]
    assert {kernel for kernel, *_ in listed} == {path.stem for path in CUDA.rglob("*.cu")}
    assert [each for each in listed if each[0] == "wna16"] == [("wna16", "sm_80", "8.7"), ("wna16", "sm_90a", "8.7")]
    monkeypatch.setattr(loader, "FOLDER", ptx / "nothing")
    assert cuda.ptx() == []


def test_streams() -> None:
    protocol = SimpleNamespace(__cuda_stream__=lambda: (0, 7))
    older = SimpleNamespace(__cuda_stream__=(0, 8))
    given = [None, 0, 5, protocol, older, SimpleNamespace(cuda_stream=9), SimpleNamespace(ptr=10)]
    assert [loader.stream_handle(stream) for stream in given] == [0, 0, 5, 7, 8, 9, 10]
    with pytest.raises(DeviceError):
        loader.stream_handle(-1)
    for wrong in ("stream", True, 1.0):
        with pytest.raises(DtypeError):
            loader.stream_handle(wrong)


@pytest.mark.parametrize(
    ("array", "dtype", "strides"),
    [
        (np.zeros((3, 4), np.float16), "f16", (4, 1)),
        (np.zeros((3, 4), np.int32)[:, ::2], "i32", (4, 2)),
        (np.zeros((2, 3, 4), np.uint8).transpose(2, 0, 1), "u8", (1, 12, 4)),
        (torch.zeros(3, 4, dtype=torch.bfloat16), "bf16", (4, 1)),
        (torch.zeros(3, 4, requires_grad=True), "f32", (4, 1)),
        (torch.zeros(5, dtype=torch.bool), "bool8", (1,)),
        (jnp.zeros((3, 4), jnp.bfloat16), "bf16", (4, 1)),
        (np.zeros((), np.float32), "f32", ()),
    ],
)
def test_arrays_through_dlpack(array: Any, dtype: str, strides: tuple[int, ...]) -> None:
    seen = exported("x", array)
    assert (seen.dtype, seen.shape, seen.strides, seen.device) == (dtype, tuple(array.shape), strides, 0)
    assert seen.framework == {"numpy": "", "torch": "torch"}.get(type(array).__module__, "jax")
    pointer = array.data_ptr() if seen.framework == "torch" else None if seen.framework else array.ctypes.data
    assert pointer in (None, seen.pointer)


def test_offsets_are_part_of_the_pointer() -> None:
    base = torch.zeros(8, dtype=torch.int32)
    assert exported("x", base[3:]).pointer == base.data_ptr() + 12


@pytest.mark.parametrize("array", [np.zeros(3), torch.zeros(3), jnp.zeros(3)], ids=["numpy", "torch", "jax"])
def test_the_cpu_is_no_cuda_device(array: Any) -> None:
    with pytest.raises(DeviceError, match=r"x: given the CPU, expected a CUDA device; subbyte\.kernels"):
        cuda.wna16(array, array, array, None, 4)


def test_what_is_no_array() -> None:
    with pytest.raises(DtypeError, match="list"):
        view("x", [1.0])


class Elsewhere:
    """Of no framework that we know, but on a GPU."""

    def __init__(self) -> None:
        self.array = np.zeros(3, np.float16)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self, stream: int | None = None) -> object:
        assert stream == -1
        return self.array.__dlpack__()


def test_a_framework_that_cannot_be_asked_for_memory() -> None:
    with pytest.raises(DeviceError, match="torch or cupy or jax"):
        view("x", Elsewhere())


def on_gpu(what: str, shape: tuple[int, ...], dtype: str, itemsize: int) -> View:
    strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    return View(what, 4096, shape, strides, dtype, itemsize, 0, "torch")


X = on_gpu("x", (2, 3, 64), "f16", 2)
WORDS = on_gpu("words", (5, 8), "i32", 4)
SCALE = on_gpu("scale", (5, 2), "f16", 2)
ZERO = on_gpu("zero", (5, 2), "u8", 1)
ORDER = on_gpu("order", (64,), "i32", 4)
check, check_w8a8, check_fp8 = (sys.modules[f"subbyte.cuda.gemm.{name}"].check for name in ("wna16", "w8a8", "fp8"))


def test_a_problem_that_fits() -> None:
    problem = check(X, WORDS, SCALE, ZERO, None, 4, 32)
    assert (problem.m, problem.n, problem.k, problem.group, problem.blocks) == (6, 5, 64, 32, 1)
    assert problem.entry == "wna16_few_w4_f16_e1_m8"
    narrow = replace(SCALE, shape=(5, 4), strides=(4, 1))
    assert check(X, WORDS, narrow, None, None, 4, 16).entry == "wna16_w4_f16_sym"
    many = replace(X, shape=(17, 64), strides=(64, 1))
    floats = replace(ZERO, dtype="f16", itemsize=2)
    assert check(many, WORDS, SCALE, floats, None, 4, 32).entry == "wna16_mma_w4_f16_float_m64"
    assert check(X, WORDS, SCALE, floats, None, 4, 32).entry == "wna16_mma_w4_f16_float_m16"
    whole = check(X, WORDS, replace(SCALE, shape=(5, 1), strides=(1, 1)), None, ORDER, 4, -1)
    assert (whole.group, whole.entry) == (64, "wna16_few_w4_f16_e4_m8")
    assert check(replace(X, shape=(0, 64), strides=(64, 1)), WORDS, SCALE, None, None, 4, 32).blocks == 0
    empty = check(
        on_gpu("x", (3, 0), "bf16", 2),
        on_gpu("words", (5, 0), "i32", 4),
        on_gpu("scale", (5, 0), "bf16", 2),
        None,
        None,
        4,
        -1,
    )
    assert (empty.k, empty.group) == (0, 1)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda c: c.update(bits=9), RangeError, "bits: given 9"),
        (lambda c: c.update(bits=0), RangeError, "1 to 8"),
        (lambda c: c.update(x=replace(X, dtype="f32", itemsize=4)), DtypeError, "x: given f32, expected f16 or bf16"),
        (lambda c: c.update(words=replace(WORDS, dtype="u32")), DtypeError, "words: given u32, expected i32"),
        (lambda c: c.update(scale=replace(SCALE, dtype="bf16")), DtypeError, "scale: given bf16, expected f16"),
        (lambda c: c.update(zero=replace(ZERO, dtype="i8")), DtypeError, "zero: given i8, expected u8"),
        (
            lambda c: c.update(
                zero=on_gpu("zero", (5, 4), "f16", 2), scale=on_gpu("scale", (5, 4), "f16", 2), group=16
            ),
            DtypeError,
            "zero: given f16, expected u8 for 4 bits in groups of 16; round",
        ),
        (lambda c: c.update(x=replace(X, shape=(), strides=())), ShapeError, "scalar"),
        (lambda c: c.update(words=replace(WORDS, shape=(40,), strides=(1,))), ShapeError, r"words: given \(40,\)"),
        (lambda c: c.update(words=replace(WORDS, shape=(5, 7), strides=(7, 1))), ShapeError, r"\(5, 8\) for K = 64"),
        (lambda c: c.update(scale=replace(SCALE, shape=(2, 5), strides=(5, 1))), ShapeError, r"scale: given \(2, 5\)"),
        (lambda c: c.update(zero=replace(ZERO, shape=(5, 1), strides=(1, 1))), ShapeError, r"zero: given \(5, 1\)"),
        (lambda c: c.update(order=replace(ORDER, shape=(63,))), ShapeError, r"order: given \(63,\), expected \(64,\)"),
        (lambda c: c.update(order=replace(ORDER, dtype="i64", itemsize=8)), DtypeError, "order: given i64"),
        (lambda c: c.update(group=48), ShapeError, "group: given 48, expected a divisor of K = 64"),
        (lambda c: c.update(group=0), ShapeError, "group: given 0"),
        (lambda c: c.update(x=replace(X, strides=(384, 128, 2))), StrideError, "contiguous copy"),
        (lambda c: c.update(scale=replace(SCALE, strides=(1, 5))), StrideError, "scale: given strides"),
        (lambda c: c.update(words=replace(WORDS, pointer=4098)), StrideError, "misaligned"),
        (lambda c: c.update(words=replace(WORDS, device=1)), DeviceError, "words: given torch on device 1"),
        (lambda c: c.update(zero=replace(ZERO, framework="cupy")), DeviceError, "cupy on device 0"),
        (lambda c: c.update(x=replace(X, shape=(2**31, 64), strides=(64, 1))), RangeError, r"below 2\^31"),
    ],
)
def test_what_wna16_refuses(change: Callable[[dict[str, Any]], None], error: type[SubbyteError], says: str) -> None:
    case = {"x": X, "words": WORDS, "scale": SCALE, "zero": ZERO, "order": None, "bits": 4, "group": 32}
    change(case)
    with pytest.raises(error, match=says):
        check(**case)


def test_axes_of_one_have_any_stride() -> None:
    check(replace(X, shape=(1, 6, 64), strides=(7, 64, 1)), WORDS, SCALE, ZERO, None, 4, 32)


CODES = on_gpu("x", (3, 40), "i8", 1)
WEIGHT = on_gpu("weight", (5, 40), "i8", 1)
X_SCALE, W_SCALE, BIAS = (on_gpu(*each, "f32", 4) for each in (("x_scale", (3,)), ("w_scale", (1,)), ("bias", (5,))))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"x": replace(CODES, dtype="u8")}, DtypeError, "x: given u8, expected i8"),
        ({"weight": on_gpu("weight", (5, 41), "i8", 1)}, ShapeError, r"weight: given \(5, 41\), expected \[N, 40\]"),
        ({"x": on_gpu("x", (40,), "i8", 1)}, ShapeError, r"x: given \(40,\)"),
        (
            {"x_scale": on_gpu("x_scale", (4,), "f32", 4)},
            ShapeError,
            r"x_scale: given \(4,\), expected \(3,\) or \(1,\)",
        ),
        ({"bias": on_gpu("bias", (1,), "f32", 4)}, ShapeError, r"bias: given \(1,\), expected \(5,\)"),
        ({"w_scale": replace(W_SCALE, device=1)}, DeviceError, "w_scale: given torch on device 1"),
        (
            {"x": on_gpu("x", (3, 2**17), "i8", 1), "weight": on_gpu("weight", (5, 2**17), "i8", 1)},
            RangeError,
            r"K: given 131072, expected below 2\^17",
        ),
    ],
)
def test_what_w8a8_refuses(change: dict[str, View], error: type[SubbyteError], says: str) -> None:
    case = {"x": CODES, "weight": WEIGHT, "x_scale": X_SCALE, "w_scale": W_SCALE, "bias": BIAS}
    assert check_w8a8(**case) == (3, 5, 40)
    with pytest.raises(error, match=says):
        check_w8a8(**{**case, **change})


def test_what_w4a8_refuses() -> None:
    check_w4a8 = sys.modules["subbyte.cuda.gemm.w4a8"].check
    words, level = on_gpu("words", (5, 20), "i32", 4), on_gpu("level", (5, 10), "u8", 1)
    x = on_gpu("x", (3, 160), "i8", 1)
    rest = X_SCALE, W_SCALE
    assert check_w4a8(x, words, *rest, level, None, BIAS, 16) == (3, 5, 160, 16)
    assert check_w4a8(x, words, *rest, None, None, None, -1) == (3, 5, 160, 160)
    for group in (8, 40, 48, 0):
        with pytest.raises(ShapeError, match="a multiple of 16, or -1"):
            check_w4a8(x, words, *rest, None, None, None, group)
    with pytest.raises(ShapeError, match=r"level: given \(5, 10\), expected \(5, 5\) for groups of 32"):
        check_w4a8(x, words, *rest, level, None, None, 32)
    with pytest.raises(ShapeError, match=r"words: given \(5, 20\), expected \[N, 21\]"):
        check_w4a8(on_gpu("x", (3, 161), "i8", 1), words, *rest, None, None, None, -1)
    with pytest.raises(DtypeError, match="zero: given i8, expected u8"):
        check_w4a8(x, words, *rest, None, replace(level, what="zero", dtype="i8"), None, 16)
    long = on_gpu("x", (3, 2**17), "i8", 1), on_gpu("words", (5, 2**14), "i32", 4)
    with pytest.raises(RangeError, match="K"):
        check_w4a8(*long, *rest, None, None, None, -1)


def test_what_fp8_refuses() -> None:
    x, weight = on_gpu("x", (300, 200), "u8", 1), on_gpu("weight", (5, 200), "u8", 1)
    one, token, block = (on_gpu("x_scale", shape, "f32", 4) for shape in ((1, 1), (300, 1), (3, 2)))
    channel = on_gpu("w_scale", (5, 2), "f32", 4)
    assert check_fp8(x, weight, one, channel, "e5m2", None) == (300, 5, 200, 1, 1, 128, 5, 2, 1)
    assert check_fp8(x, weight, token, channel, "e4m3fn", BIAS)[3:6] == (300, 1, 1)
    assert check_fp8(x, weight, block, channel, "e4m3fn", None)[3:6] == (3, 2, 128)
    with pytest.raises(UnknownNameError, match="format: given 'e4m3', expected one of e4m3fn, e5m2"):
        check_fp8(x, weight, one, channel, "e4m3", None)
    for shape in ((2, 1), (3, 3), (300,)):
        with pytest.raises(ShapeError, match="expected 1, 3 or 300 rows of 1 or 2 scales"):
            check_fp8(x, weight, on_gpu("x_scale", shape, "f32", 4), channel, "e4m3fn", None)
    with pytest.raises(DtypeError, match="weight: given i8, expected u8"):
        check_fp8(x, replace(weight, dtype="i8"), one, channel, "e4m3fn", None)
    with pytest.raises(ShapeError, match="bias"):
        check_fp8(x, weight, one, channel, "e4m3fn", on_gpu("bias", (4,), "f32", 4))


def test_what_the_transforms_refuse() -> None:
    check_rows = sys.modules["subbyte.cuda.hadamard"].check
    check_tokens = sys.modules["subbyte.cuda.quantize"].check
    assert check_rows(on_gpu("x", (3, 5, 48), "f16", 2)) == (15, 48)
    assert check_tokens(on_gpu("x", (3, 5), "f32", 4), 1e-5, "int8") == (3, 5)
    for n in (0, 6, 92):
        with pytest.raises(RangeError, match="Hadamard matrix is known"):
            check_rows(on_gpu("x", (3, n), "f32", 4))
    with pytest.raises(RangeError, match="pass fewer at a time"):
        check_rows(on_gpu("x", (2**31, 4), "f32", 4))
    with pytest.raises(RangeError, match="eps: given 0"):
        check_tokens(on_gpu("x", (3, 5), "f32", 4), 0.0, "int8")
    with pytest.raises(ShapeError):
        check_tokens(on_gpu("x", (3,), "f32", 4), 1e-5, "int8")
    with pytest.raises(UnknownNameError, match="format: given 'e5m2', expected one of int8, e4m3fn"):
        check_tokens(on_gpu("x", (3, 5), "f32", 4), 1e-5, "e5m2")
    check_norm = sys.modules["subbyte.cuda.quantize"].check_norm
    x, weight = on_gpu("x", (3, 5), "f16", 2), on_gpu("weight", (5,), "f16", 2)
    check_norm(x, weight, None, "rms", 0.0)
    with pytest.raises(UnknownNameError, match="norm: given 'batch', expected one of rms, layer"):
        check_norm(x, weight, None, "batch", 0.0)
    with pytest.raises(RangeError, match="norm_eps: given -1"):
        check_norm(x, weight, None, "rms", -1.0)
    with pytest.raises(DtypeError, match="weight: given f32, expected f16"):
        check_norm(x, on_gpu("weight", (5,), "f32", 4), None, "rms", 0.0)
    with pytest.raises(ShapeError, match="bias"):
        check_norm(x, weight, on_gpu("bias", (4,), "f16", 2), "rms", 0.0)
