"""The way from an array to a launched kernel through the real cuda-python.

No GPU is needed: a stand-in for the driver runs the kernels on the CPU (tests/emulator/libcuda.cpp), and a stand-in for
CuPy says that NumPy's memory is the device's. Each test has a process of its own, as a process loads one driver.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.emulator import Emulated

ROOT = Path(__file__).resolve().parents[2]
PRELUDE = """
import ctypes, sys, types
import numpy as np

for library in sys.argv[2:]:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)

class ndarray:
    def __init__(self, array):
        self.array, self.shape, self.dtype, self.device = array, array.shape, array.dtype, self
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def __dlpack_device__(self): return (2, 0)
    def __dlpack__(self, stream=None):
        assert stream == -1
        return self.array.__dlpack__()

cupy = types.ModuleType("cupy")
cupy.ndarray = ndarray
cupy.float32, cupy.int8, cupy.uint8, cupy.int32 = np.float32, np.int8, np.uint8, np.int32
cupy.empty = lambda shape, dtype: ndarray(np.full(shape, 7, dtype))
cupy.cuda = types.SimpleNamespace(get_current_stream=lambda device: types.SimpleNamespace(ptr=42))
sys.modules["cupy"] = cupy

from pathlib import Path
from subbyte import cuda
from subbyte.cuda import loader
loader.FOLDER = Path(sys.argv[1])
"""
NUMERICS = """
from tests.cuda.test_emulated import DTYPES, pack, problem
from tests.cuda.test_wna16_mma import expected
# The plain kernel; tensor cores; few rows and two slices of K.
for bits, asym, shape in ((4, True, (3, 70, 80, 8)), (3, False, (65, 5, 64, 32)), (4, False, (2, 2, 1024, 32))):
    inputs = problem(bits, DTYPES["f16"], asym, shape)
    x, codes, scale, zero = inputs
    words = pack(codes, bits).view(np.int32)
    given = [None if a is None else ndarray(a) for a in (x[None], words, scale, zero)]
    for stream in (None, 5):
        y = cuda.wna16(*given, bits, shape[3], stream=stream)
        want, bound = expected(*inputs, bits)
        assert y.shape == (1, *want.shape) and y.dtype == np.float16
        assert (abs(y.array[0].astype(float) - want) <= bound).all()
print("ordered")
for shape in ((3, 70, 80, 8), (18, 5, 64, 32), (2, 2, 64, 32)):
    x, *weight = problem(4, DTYPES["f16"], True, shape)
    weight[0] = pack(weight[0], 4).view(np.int32)
    order = np.random.default_rng(0).permutation(shape[2]).astype(np.int32)
    turned = np.ascontiguousarray(x[:, np.argsort(order)])
    plain = cuda.wna16(*map(ndarray, (x, *weight)), 4, shape[3])
    assert np.array_equal(cuda.wna16(*map(ndarray, (turned, *weight)), 4, shape[3], ndarray(order)).array, plain.array)
nothing = cuda.wna16(ndarray(np.zeros((0, 1024), np.float16)), *given[1:], 4, 32)
assert nothing.shape == (0, 2)
"""
OTHERS = """
from subbyte import kernels
from subbyte.errors import RangeError
random = np.random.default_rng(3)
for m in (3, 20):
    codes = [random.integers(-128, 128, shape).astype(np.int8) for shape in ((m, 100), (7, 100))]
    scales = [random.random(count).astype(np.float32) for count in (m, 1, 7)]
    given = [*codes, *scales]
    assert np.array_equal(cuda.w8a8(*map(ndarray, given)).array, kernels.w8a8(*given))
from tests.oracles import w4a8
for one in (w4a8.case(3, 5, 160, 32), w4a8.case(20, 5, 1100, many=False)):
    options = {name: ndarray(each) if isinstance(each, np.ndarray) else each for name, each in one.kwargs.items()}
    got = cuda.w4a8(*map(ndarray, one.args), **options)
    assert np.array_equal(got.array, kernels.w4a8(*one.args, **one.kwargs))
from tests.oracles import w4a4
for one in (
    w4a4.case(3, 5, 1160, biased=True),  # two slices of K
    w4a4.case(20, 5, 64),
    w4a4.case(3, 5, 1280, 128, biased=True),  # the same
    w4a4.case(20, 5, 256, 256, 40),
):
    options = {name: ndarray(each) if isinstance(each, np.ndarray) else each for name, each in one.kwargs.items()}
    one.check(cuda.w4a4(*map(ndarray, one.args), **options).array)
# Two slices of K.
given = [random.integers(-128, 128, (2, 1100)).astype(np.int8) for _ in range(2)] + [np.ones(1, np.float32)] * 2
assert np.array_equal(cuda.w8a8(*map(ndarray, given)).array, kernels.w8a8(*given))
from tests.oracles.fp8 import case, cut_bound
for one in (
    case(3, 5, 200, (1, 128), (128, 128)),
    case(20, 5, 200, (1, 0), (1, 0), "e5m2", biased=True),
    case(2, 3, 1100, (1, 128), (1, 128)),
):
    given = [ndarray(each) if isinstance(each, np.ndarray) else each for each in one.args]
    bound = cut_bound(one) if len(one.args[0]) > 16 else one.bound
    assert (abs(cuda.fp8(*given).array - one.oracle(*one.args)) <= bound).all()
from tests.oracles import int4_fp8
# One tile, many rows, two slices of K.
for one in (
    int4_fp8.case(3, 5, 192, 64),
    int4_fp8.case(20, 5, 128, biased=True, many=False, whole=True),
    int4_fp8.case(2, 3, 1152, 384),
):
    options = {name: ndarray(each) if isinstance(each, np.ndarray) else each for name, each in one.kwargs.items()}
    got = cuda.int4_fp8(*map(ndarray, one.args), **options).array
    assert (abs(got - one.oracle(*one.args, **one.kwargs)) <= one.bound).all()
for n in (64, 512):
    x = random.standard_normal((2, n)).astype(np.float32)
    assert np.array_equal(cuda.hadamard(ndarray(x)).array, kernels.hadamard(x))
    x = x.astype(np.float16)
    assert np.array_equal(cuda.hadamard(ndarray(x)).array, kernels.hadamard(x))
for n in (12, 344, 4096 * 3):
    x = random.standard_normal((2, n)).astype(np.float32)
    for transpose in (False, True, True):
        got = cuda.hadamard(ndarray(x), transpose=transpose).array
        np.testing.assert_allclose(got, kernels.hadamard(x, transpose=transpose), rtol=0, atol=1e-5)
for n in (6, 2**16):
    try: cuda.hadamard(ndarray(np.zeros((1, n), np.float32)))
    except RangeError as error: assert error.args[0] == "n"
    else: raise AssertionError(n)
for n in (64, 512):
    x = random.standard_normal((2, n)).astype(np.float32)
    for format in ("int8", "e4m3fn"):
        want = kernels.quantize_tokens(x, format=format)
        for got, expected in zip(cuda.quantize_tokens(ndarray(x), format=format), want):
            assert np.array_equal(got.array, expected)
from tests.oracles import block_scaled, codebook_gemm, csr, fp8_grouped, lookup, wna16_grouped
for one in (
    wna16_grouped.case((0, 3, 14), 5, 64, zeros=True, tokens=6, dtype="f2"),
    wna16_grouped.case((70, 1), 5, 96, 3, 32, dtype="f2"),
    wna16_grouped.case((1, 1), 3, 1100, dtype="f2"),  # two slices of K
):
    given = [None if each is None else ndarray(each) for each in one.args]
    options = {name: ndarray(each) if isinstance(each, np.ndarray) else each for name, each in one.kwargs.items()}
    got = cuda.wna16_grouped(*given, **options).array
    assert (abs(got.astype(float) - one.oracle(*one.args, **one.kwargs)) <= 2 * one.bound).all()
for one in (
    fp8_grouped.case((0, 3, 14), 5, 200, (1, 128), (128, 128), biased=True, tokens=6),
    fp8_grouped.case((70, 1), 5, 96, format="e5m2", whole=True),
    fp8_grouped.case((1, 1), 3, 1100, biased=True),  # two slices of K
):
    options = {name: ndarray(each) if isinstance(each, np.ndarray) else each for name, each in one.kwargs.items()}
    got = cuda.fp8_grouped(*map(ndarray, one.args), **options).array
    assert (abs(got - one.oracle(*one.args, **one.kwargs)) <= one.bound).all()
for one in (csr.case(3, 9, 50, 0.2, x_dtype="f2"), csr.case(9, 3, 65600, 0.001, "f4", "f2", based=False)):
    given = [None if each is None else ndarray(each) for each in one.args]
    got = cuda.csr(*given).array
    assert (abs(got.astype(float) - one.oracle(*one.args)) <= one.bound).all()
for one in (
    block_scaled.case(3, 5, 96, "e2m1", dtype="f2"),
    block_scaled.case(18, 5, 1056, "e4m3fn", 16, "e4m3fn", tensor_scale=0.5, dtype="f2"),
):
    got = cuda.block_scaled(*map(ndarray, one.args), **one.kwargs).array
    assert (abs(got.astype(float) - one.oracle(*one.args, **one.kwargs)) <= 2 * one.bound).all()
from tests.oracles import block_scaled_pair
for one in (
    block_scaled_pair.case(3, 5, 96, "e2m1"),
    block_scaled_pair.case(18, 5, 1040, "e2m1", 16, "e4m3fn", tensor_scale=0.5),  # two slices of K
    block_scaled_pair.case(2, 5, 64, "int8"),
):
    one.check(cuda.block_scaled_pair(*map(ndarray, one.args), **one.kwargs).array)
for one in (
    lookup.case(2, 5, 1088, 4, 64, by_row=False, dtype="f2"),  # two slices of K
    lookup.case(18, 5, 1088, 4, 1088, by_row=True, dtype="f2"),
    lookup.case(3, 5, 60, 5, 12, by_row=True, dtype="f2"),
):
    got = cuda.lookup(*map(ndarray, one.args), **one.kwargs).array
    assert (abs(got.astype(float) - one.oracle(*one.args, **one.kwargs)) <= 2 * one.bound).all()
for one in (
    codebook_gemm.lattice(2, 7, 64, 2, "f2"),
    codebook_gemm.lattice(18, 7, 1304, 3, "f2"),
    codebook_gemm.table(3, 37, 24, 8, (4096, 16), dtype="f2"),
    codebook_gemm.table(18, 37, 24, 16, (5, 60000), dtype="f2"),  # one stage in shared memory
    codebook_gemm.table(2, 21, 1116, 6, (60, 0), 3, "f2"),  # two slices of K
):
    given = [ndarray(each) for each in one.args]
    options = {name: ndarray(each) if isinstance(each, np.ndarray) else each for name, each in one.kwargs.items()}
    got = cuda.codebook_gemm(*given, **options).array
    assert (abs(got.astype(float) - one.oracle(*one.args, **one.kwargs)) <= 2 * one.bound).all()
from tests.oracles import hadamard_quantize, norm_quantize
for kernel, oracle in (("norm_quantize", norm_quantize), ("hadamard_quantize", hadamard_quantize)):
    for one in oracle.cases():
        given = [None if each is None else ndarray(each) for each in one.args]
        one.check(tuple(each.array for each in getattr(cuda, kernel)(*given, **one.kwargs)))
"""


OTHER_KERNELS = (
    "block_scaled",
    "block_scaled_pair",
    "codebook_gemm",
    "codebook_gemm_vectors",
    "csr",
    "lookup",
    "lookup_few",
    "lookup_mma",
    "wna16_grouped",
    "wna16_mma",
    "fp8",
    "fp8_sm90a",
    "fp8_grouped",
    "fp8_grouped_sm90a",
    "int4_fp8",
    "int4_fp8_sm90a",
    "w4a4",
    "w4a8",
    "w8a8",
    "w8a8_sm90a",
    "hadamard",
    "hadamard_quantize",
    "norm_quantize",
    "quantize_tokens",
    "sum",
)


@pytest.fixture(scope="module")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++ (Debian: apt install g++) for the stand-in driver")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = ROOT / "tests" / "emulator" / "libcuda.cpp"
    flags = ["-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{library.name}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
    return library


def run(
    code: str, libcuda: Path, emulated: Emulated | list[Emulated], ptx: Path, **settings: int
) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("cuda.bindings", reason="needs cuda-python: pip install 'subbyte[cuda]'")
    kernels = [each.library._name for each in (emulated if isinstance(emulated, list) else [emulated])]
    command = [sys.executable, "-c", PRELUDE + code, str(ptx), str(libcuda), *kernels]
    environment = os.environ | {f"FAKE_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def test_launches_and_agrees_with_numpy(libcuda: Path, emulate: Callable[[str], Emulated], ptx: Path) -> None:
    """Arguments arrive as the kernel declares them, on the framework's stream or the caller's; PTX is loaded once."""
    kernels = ("wna16", "wna16_mma", "wna16_few", "gather", "sum")
    done = run(NUMERICS, libcuda, [emulate(name) for name in kernels], ptx)
    assert done.returncode == 0, done.stderr
    one, two = "launched on stream 42", "launched on stream 5"
    loaded = "loaded sm_90a"
    shown, _, ordered = done.stdout.partition("ordered\n")
    assert shown.splitlines() == [loaded, one, two, loaded, one, two, loaded, one, loaded, one, two, two]
    assert ordered.splitlines().count(one) == 3 * 2 + 2  # with an order, all but the one for few rows gather first


def test_the_other_kernels_give_the_bits_of_the_cpu(
    libcuda: Path, emulate: Callable[[str], Emulated], ptx: Path
) -> None:
    """More than 48 KiB of dynamic shared memory are asked for, too."""
    done = run(OTHERS, libcuda, [emulate(name) for name in OTHER_KERNELS], ptx)
    assert done.returncode == 0, done.stderr


def test_wgmma_is_for_hopper_alone(libcuda: Path, emulate: Callable[[str], Emulated], ptx: Path) -> None:
    """Many rows of 8-bit floats: sums that are cut there, sums of f32 elsewhere."""
    code = """
from tests.oracles.fp8 import case, cut_bound
one = case(70, 5, 384, (1, 128), (128, 128))
got = cuda.fp8(*(ndarray(each) if isinstance(each, np.ndarray) else each for each in one.args)).array
error = abs(got - one.oracle(*one.args)).max()
print("within", ["neither", "that of wgmma", "both"][int(error <= cut_bound(one)) + int(error <= one.bound)])
"""
    for capability, kernel, within in ((90, "fp8_sm90a", "that of wgmma"), (80, "fp8", "both"), (120, "fp8", "both")):
        done = run(code, libcuda, emulate(kernel), ptx, capability=capability)
        assert done.stdout.splitlines()[-1:] == [f"within {within}"], done.stderr


def test_blocks_go_to_the_tensor_cores_of_blackwell_as_they_are(
    libcuda: Path, emulate: Callable[[str], Emulated], ptx: Path
) -> None:
    """But for int8, which those do not take, and on sm_100 few rows."""
    code = """
from tests.oracles.block_scaled_pair import case
for format in (("e2m1", 16, "e4m3fn"), ("e4m3fn", 32, "e8m0"), ("int8", 32, "e8m0")):
    for rows in (3, 20):
        one = case(rows, 5, 1056, *format, tensor_scale=0.5)
        one.check(cuda.block_scaled_pair(*map(ndarray, one.args), **one.kwargs).array)
"""
    names = "block_scaled_pair", "block_scaled_pair_sm100a", "block_scaled_pair_sm120a", "sum"
    emulated = [emulate(name) for name in names]
    for capability, loaded in (
        (120, ["sm_120a", "sm_80", "sm_80"]),
        (100, ["sm_80", "sm_80", "sm_100a"]),
        (121, ["sm_80", "sm_80"]),
    ):
        done = run(code, libcuda, emulated, ptx, capability=capability)
        assert done.returncode == 0, done.stderr
        assert re.findall(r"^loaded (\S+)", done.stdout, re.MULTILINE) == loaded


def test_devices(libcuda: Path, emulated: Emulated, ptx: Path) -> None:
    done = run("print(cuda.devices(), cuda.driver_version())", libcuda, emulated, ptx, capability=89)
    expected = "[Device(index=0, name='CPU as a GPU', capability=(8, 9), memory=3221225472)] (12, 8)"
    assert done.stdout.strip() == expected, done.stderr


def test_a_device_without_its_own_code_takes_the_plain_one(libcuda: Path, emulated: Emulated, ptx: Path) -> None:
    done = run("cuda.load('wna16', 'wna16_w4_f16_sym', 0)", libcuda, emulated, ptx, capability=120)
    assert done.stdout.split() == ["loaded", "sm_80"], done.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"init": 100}, "CUDA_ERROR_NO_DEVICE"),
        ({"init": 34}, "CUDA_ERROR_STUB_LIBRARY"),
        ({"capability": 75}, "compute capability 7.5, expected one that takes sm_80, sm_90a"),
        ({"load": 222, "version": 12020}, "given PTX 8.7 and a driver for CUDA 12.2"),
        ({"load": 218}, "CUDA_ERROR_INVALID_PTX"),
        ({}, "no_such: given error 500 (CUDA_ERROR_NOT_FOUND), expected an entry of cuda/**/wna16.cu"),
    ],
    ids=str,
)
def test_what_the_driver_refuses(
    settings: dict[str, int], says: str, libcuda: Path, emulated: Emulated, ptx: Path
) -> None:
    done = run("cuda.load('wna16', 'no_such', 0)", libcuda, emulated, ptx, **settings)
    assert "subbyte.errors.DriverError" in done.stderr
    assert says in done.stderr
