"""The CUDA kernels on a real GPU; tests/cuda/test_emulated.py checks the same arithmetic where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from subbyte import cuda, kernels
from subbyte.cuda import loader
from subbyte.cuda.gemm.block_scaled import ELEMENTS
from subbyte.cuda.gemm.block_scaled_pair import FORMATS
from subbyte.errors import DeviceError, SubbyteError
from tests.cuda.test_codebook_gemm import expected as codebook_expected
from tests.cuda.test_codebook_gemm import inputs_of as codebook_inputs
from tests.cuda.test_codebook_gemm_vectors import CASES as VECTORS
from tests.cuda.test_emulated import DTYPES, SHAPES, pack, problem
from tests.cuda.test_wna16_few import SHAPES_FEW, SHAPES_NARROW
from tests.cuda.test_wna16_mma import BITS, SHAPES_MMA, ZEROS, expected, inputs_of
from tests.oracles import (
    block_scaled,
    block_scaled_pair,
    codebook_gemm,
    csr,
    fp8,
    fp8_grouped,
    hadamard,
    hadamard_quantize,
    int4_fp8,
    lookup,
    norm_quantize,
    quantize_tokens,
    w4a4,
    w4a8,
    w8a8,
    wna16_grouped,
)
from tests.oracles.case import Case

try:
    DEVICES = cuda.devices()
except SubbyteError as error:
    pytest.skip(f"needs a GPU: {error}", allow_module_level=True)

OTHERS = [
    *(
        ("w8a8", case)
        for case in [*w8a8.cases(), w8a8.large(256, 512, 1024), w8a8.large(300, 260, 1100), w8a8.large(1, 512, 4096)]
    ),
    *(("w4a8", case) for case in w4a8.cases() if case.kwargs["group"] % 16 == 0 or case.kwargs["group"] == -1),
    *(("w4a8", case) for case in [w4a8.large(1, 256, 4096, 128), w4a8.large(200, 256, 1024, -1)]),
    *(("w4a4", case) for case in [*(case for case in w4a4.cases() if not case.bound), w4a4.large(200, 256, 1024, -1)]),
    *(("hadamard", case) for case in [*hadamard.cases(), *hadamard.halves()[:4], hadamard.large(4, 32768)]),
    *(("norm_quantize", case) for case in [*norm_quantize.cases(), norm_quantize.large(64, 4096)]),
    *(("hadamard_quantize", case) for case in hadamard_quantize.cases()),
    *(("quantize_tokens", case) for case in [*quantize_tokens.cases(), quantize_tokens.large(64, 4096)]),
]
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
    if zero is not None and zero.dtype != np.uint8:
        zeros = torch.from_numpy(zero.view(np.int16)).view(dtype).cuda()
    else:
        zeros = None if zero is None else torch.from_numpy(zero).cuda()
    return [half[0], words, half[1], zeros]


@pytest.mark.parametrize("shape", SHAPES + LARGER, ids=str)
@pytest.mark.parametrize("asym", [False, True], ids=["sym", "asym"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("bits", range(1, 9))
def test_wna16_agrees_with_numpy(bits: int, dtype: np.dtype, asym: bool, shape: tuple[int, int, int, int]) -> None:
    compare(problem(bits, dtype, asym, shape), bits, shape[3])


@pytest.mark.parametrize("shape", SHAPES_MMA + SHAPES_FEW + SHAPES_NARROW + LARGER, ids=str)
@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("bits", BITS)
def test_wna16_on_tensor_cores(bits: int, dtype: np.dtype, zeros: str, shape: tuple[int, int, int, int]) -> None:
    compare(inputs_of(bits, dtype, zeros, shape), bits, shape[3])


def compare(inputs: list, bits: int, group: int) -> None:
    """Within the bound, which is that of tensor cores for all, and the same bits twice."""
    y, bound = expected(*inputs, bits)
    given = to_torch(inputs, bits)
    got = kernels.wna16(*given, bits, group)
    assert got.dtype == given[0].dtype
    assert (abs(got.double().cpu().numpy() - y) <= bound).all()
    assert torch.equal(got, kernels.wna16(*given, bits, group))
    order = torch.randperm(given[0].shape[1], dtype=torch.int32, device="cuda")
    turned = given[0][:, torch.argsort(order)].contiguous()
    assert torch.equal(got, kernels.wna16(turned, *given[1:], bits, group, order))
    order[-1] = len(order)
    assert kernels.wna16(turned, *given[1:], bits, group, order).isnan().all()


@pytest.mark.parametrize(("kernel", "case"), OTHERS, ids=lambda each: str(each))
def test_the_bits_of_the_cpu(kernel: str, case: Case) -> None:
    results = []
    for device in ("cuda", "cpu"):
        given = [torch.tensor(each).to(device) if isinstance(each, np.ndarray) else each for each in case.args]
        options = {
            name: torch.tensor(each).to(device) if isinstance(each, np.ndarray) else each
            for name, each in case.kwargs.items()
        }
        results.append(getattr(kernels, kernel)(*given, **options))
    got, want = results
    for one, other in zip(*((each if isinstance(each, tuple) else (each,)) for each in (got, want)), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=0, equal_nan=True)


#: Many rows: full tiles and odd ones, more stages than a ring holds; whole numbers, whose sums wgmma does not cut.
FP8 = [
    fp8.case(*shape, (1, 128), grid, format, whole=whole)
    for shape in ((64, 128, 384), (130, 70, 400), (257, 40, 300), (20, 9, 1100))
    for grid in ((128, 128), (1, 0))
    for format in ("e4m3fn", "e5m2")
    for whole in (False, True)
]


@pytest.mark.parametrize("case", [*fp8.cases(), *FP8], ids=str)
def test_fp8_agrees_with_the_oracle(case: Case) -> None:
    given = [torch.tensor(each).cuda() if isinstance(each, np.ndarray) else each for each in case.args]
    got = kernels.fp8(*given)
    cut = torch.cuda.get_device_capability() == (9, 0) and len(case.args[0]) > 16 and not case.id.endswith("whole")
    assert (abs(got.cpu().numpy() - case.oracle(*case.args)) <= (fp8.cut_bound(case) if cut else case.bound)).all()
    assert torch.equal(got, kernels.fp8(*given))


#: More experts than a warp has lanes; many rows of each, in whole numbers, whose sums wgmma does not cut.
FP8_GROUPED = [
    fp8_grouped.case((0,) * 40 + (200, 1), 130, 1088),
    *(
        fp8_grouped.case(counts, 130, 400, (1, 128), (128, 128), format, True, tokens=50, whole=True)
        for counts in ((64, 65), (300, 0, 1))
        for format in ("e4m3fn", "e5m2")
    ),
]


@pytest.mark.parametrize("case", [*fp8_grouped.cases(), *FP8_GROUPED], ids=str)
def test_fp8_grouped_agrees_with_the_oracle(case: Case) -> None:
    args = [torch.from_numpy(each).cuda() for each in case.args]
    options = {
        name: torch.from_numpy(each).cuda() if isinstance(each, np.ndarray) else each
        for name, each in case.kwargs.items()
    }
    got = kernels.fp8_grouped(*args, **options)
    assert (abs(got.cpu().numpy() - case.oracle(*case.args, **case.kwargs)) <= case.bound).all()
    assert torch.equal(got, kernels.fp8_grouped(*args, **options))


W4A4 = [case for case in w4a4.cases() if case.bound and case.kwargs["group"] in (-1, 128, 256, 384)]


@pytest.mark.parametrize("case", [*W4A4, w4a4.large(65, 132, 1024, 128, 128)], ids=str)
def test_w4a4_agrees_with_the_oracle(case: Case) -> None:
    args = [torch.from_numpy(each).cuda() for each in case.args]
    options = {
        name: torch.from_numpy(each).cuda() if isinstance(each, np.ndarray) else each
        for name, each in case.kwargs.items()
    }
    got = kernels.w4a4(*args, **options)
    case.check(got.cpu().numpy())
    assert torch.equal(got, kernels.w4a4(*args, **options))


INT4_FP8 = [
    *(case for case in int4_fp8.cases() if case.args[3].dtype == np.uint8 and case.kwargs["group"] != 20),
    int4_fp8.case(33, 40, 768, 128, biased=True),
    # Many rows: full tiles and odd ones; whole numbers, whose sums wgmma does not cut.
    *(int4_fp8.case(*shape, whole=whole) for shape in ((64, 128, 64, 64), (140, 30, 200)) for whole in (False, True)),
]


@pytest.mark.parametrize("case", INT4_FP8, ids=str)
@pytest.mark.parametrize("wide", [False, True], ids=["e4m3fn", "bf16"])
def test_int4_fp8_agrees_with_the_oracle(case: Case, wide: bool) -> None:
    x, words, x_scale, w_scale = (torch.from_numpy(each).cuda() for each in case.args)
    if wide:  # E4M3 has fewer bits than bf16
        w_scale = w_scale.view(torch.float8_e4m3fn).bfloat16()
    options = {
        name: torch.from_numpy(each).cuda() if isinstance(each, np.ndarray) else each
        for name, each in case.kwargs.items()
    }
    got = kernels.int4_fp8(x, words, x_scale, w_scale, **options)
    want = case.oracle(*case.args, **case.kwargs)
    cut = torch.cuda.get_device_capability() == (9, 0) and len(case.args[0]) > 16 and not case.id.endswith("whole")
    assert (abs(got.cpu().numpy() - want) <= (int4_fp8.cut_bound(case) if cut else case.bound)).all()
    assert torch.equal(got, kernels.int4_fp8(x, words, x_scale, w_scale, **options))


@pytest.mark.parametrize("case", [*hadamard.mixed(), hadamard.large(3, 11008)], ids=str)
def test_hadamard_with_an_outer_matrix(case: Case) -> None:
    got = kernels.hadamard(torch.from_numpy(case.args[0]).cuda(), **case.kwargs)
    # tensor cores may cut sums where the CPU rounds them
    assert (abs(got.cpu().numpy() - case.oracle(*case.args, **case.kwargs)) <= 6 * case.bound).all()


@pytest.mark.parametrize("case", [case for case in block_scaled.cases() if case.kwargs["element"] in ELEMENTS], ids=str)
def test_block_scaled_agrees_with_the_oracle(case: Case) -> None:
    x, words, scale = (torch.from_numpy(each).cuda() for each in case.args)
    got = kernels.block_scaled(x.half(), words, scale, **case.kwargs)
    with np.errstate(over="ignore"):
        want = case.oracle(case.args[0].astype(np.float16), *case.args[1:], **case.kwargs)
    largest = abs(want[np.isfinite(want)]).max(initial=0)
    torch.testing.assert_close(
        got.cpu(), torch.from_numpy(want), rtol=0, atol=float(4 * case.bound + 2.0**-10 * largest)
    )
    assert torch.equal(got, kernels.block_scaled(x.half(), words, scale, **case.kwargs))


BLOCKED = [
    block_scaled_pair.case(*shape, *format, tensor_scale=0.3)
    for format in FORMATS
    for shape in ((1, 5, 96), (17, 130, 544), (65, 40, 1056), (300, 264, 4096))
]


@pytest.mark.parametrize("case", BLOCKED, ids=str)
def test_block_scaled_pair_agrees_with_the_oracle(case: Case) -> None:
    args = [torch.from_numpy(each).cuda() for each in case.args]
    got = kernels.block_scaled_pair(*args, **case.kwargs)
    case.check(got.cpu().numpy())
    assert torch.equal(got, kernels.block_scaled_pair(*args, **case.kwargs))


@pytest.mark.parametrize("values", ["f2", "f4"])
@pytest.mark.parametrize("shape", [(1, 70, 40), (7, 3, 65_600), (35, 65, 130), (16, 4096, 1024)], ids=str)
def test_csr_agrees_with_the_oracle(shape: tuple[int, int, int], values: str) -> None:
    case = csr.case(*shape, 0.05, values, "f2")
    got = kernels.csr(*(torch.from_numpy(each).cuda() for each in case.args))
    assert (abs(got.cpu().numpy().astype(np.float64) - case.oracle(*case.args)) <= csr.bound(*case.args)).all()


@pytest.mark.parametrize("counts", [(1,), (0, 3, 0, 17, 0), (65, 64), (0,) * 40 + (200, 1)], ids=str)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_wna16_grouped_agrees_with_the_oracle(bits: int, counts: tuple[int, ...]) -> None:
    given = wna16_grouped.case(counts, 130, 1088, bits, 64, zeros=True, tokens=7, dtype="f2")
    args = [torch.from_numpy(each).cuda() for each in given.args]
    options = given.kwargs | {"rows": torch.from_numpy(given.kwargs["rows"]).cuda()}
    got = kernels.wna16_grouped(*args, **options)
    assert (abs(got.double().cpu().numpy() - given.oracle(*given.args, **given.kwargs)) <= 2 * given.bound).all()
    assert torch.equal(got, kernels.wna16_grouped(*args, **options))


@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("shape", [(1, 5, 40, 8), (3, 65, 96, 32), (16, 257, 1152, 128), (40, 257, 256, 64)], ids=str)
@pytest.mark.parametrize("bits", range(1, 9))
def test_lookup_agrees_with_the_oracle(bits: int, shape: tuple[int, int, int, int], by_row: bool) -> None:
    given = lookup.case(*shape[:3], bits, shape[3], by_row, "f2")
    args = [torch.from_numpy(each).cuda() for each in given.args]
    got = kernels.lookup(*args, **given.kwargs)
    assert (abs(got.double().cpu().numpy() - given.oracle(*given.args, **given.kwargs)) <= 2 * given.bound).all()
    assert torch.equal(got, kernels.lookup(*args, **given.kwargs))


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 70, 72), (9, 13, 56), (17, 257, 64), (1, 4096, 4096), (7, 1000, 2048)], ids=str)
def test_codebook_gemm_agrees_with_the_oracle(shape: tuple[int, int, int], bits: int) -> None:
    for dtype in DTYPES.values():
        x, words = codebook_inputs(shape, bits, dtype)
        y, bound = codebook_expected(x, words, bits)
        half = torch.from_numpy(x.view(np.int16)).view(torch.float16 if dtype == np.float16 else torch.bfloat16)
        given = half.cuda(), torch.from_numpy(words).cuda(), bits
        got = kernels.codebook_gemm(*given)
        assert (abs(got.double().cpu().numpy() - y) <= bound).all()
        assert torch.equal(got, kernels.codebook_gemm(*given))


@pytest.mark.parametrize(
    ("shape", "kind"), [*VECTORS, ((1, 4096, 4096), (8, (4096, 0))), ((9, 1000, 2048), (8, (65536, 256)))], ids=str
)
def test_codebook_gemm_of_stored_codewords(shape: tuple[int, int, int], kind: tuple) -> None:
    one = codebook_gemm.table(*shape, *kind, dtype="f2")
    args = [torch.from_numpy(each).cuda() for each in one.args]
    options = {
        name: torch.from_numpy(each).cuda() if isinstance(each, np.ndarray) else each
        for name, each in one.kwargs.items()
    }
    got = kernels.codebook_gemm(*args, **options)
    want = one.oracle(one.args[0].astype(np.float64), *one.args[1:], **one.kwargs)
    size = one.oracle(abs(one.args[0]).astype(np.float64), *one.args[1:], **of_magnitudes(one.kwargs))
    bound = (2 * shape[2] + 3) * 2.0**-23 * size + abs(want) * 2.0**-11 + 2.0**-24
    assert (abs(got.double().cpu().numpy() - want) <= bound).all()
    assert torch.equal(got, kernels.codebook_gemm(*args, **options))


def of_magnitudes(options: dict) -> dict:
    """The same with the magnitudes of all codewords."""
    return {name: abs(each) if isinstance(each, np.ndarray) else each for name, each in options.items()}


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
