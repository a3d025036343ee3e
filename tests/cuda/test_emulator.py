"""The emulator itself: fragments as the PTX ISA lays them out, and each error that it is there to find."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.cuda.test_emulated import DTYPES
from tests.emulator import CUDA, Banks, Emulated, Problem

CODE = """
#include "common/mma.cuh"
#include "common/memory.cuh"
#include "common/pairs.cuh"

template <class T, class Sum> void one_mma(const unsigned* a, const unsigned* b, Sum* sum) {
    const unsigned lane = threadIdx.x;
    unsigned as[4], bs[2];
    Sum sums[4];
    for (unsigned i = 0; i < 4; i++) as[i] = a[lane * 4 + i], sums[i] = sum[lane * 4 + i];
    for (unsigned i = 0; i < 2; i++) bs[i] = b[lane * 2 + i];
    mma(sums, as, bs, T{});
    for (unsigned i = 0; i < 4; i++) sum[lane * 4 + i] = sums[i];
}
void mma_f16(const unsigned* a, const unsigned* b, float* sum) { one_mma<F16>(a, b, sum); }
void mma_bf16(const unsigned* a, const unsigned* b, float* sum) { one_mma<BF16>(a, b, sum); }
void mma_s8(const unsigned* a, const unsigned* b, int* sum) { one_mma<S8>(a, b, sum); }
void mma_s4(const unsigned* a, const unsigned* b, int* sum) { one_mma<S4>(a, b, sum); }
void mma_s4_in_bytes(const unsigned* a, const unsigned* b, int* sum) { one_mma<S4InBytes>(a, b, sum); }

void reads_at(const int* x, int* y, unsigned at) { y[threadIdx.x] = x[at]; }
void reads_before(const int* x, int* y, unsigned at) { y[threadIdx.x] = *(x - at); }
void writes_at(const int* x, int* y, unsigned at) { y[at] = x[0]; }
void reads_wide(const int* x, int* y, unsigned at) { store(y, load<Words<4>>(x + at)); }
void reads_its_result(const int* x, int* y, unsigned) { y[0] = y[1] + x[0]; }

void shared_unwritten(const int* x, int* y, unsigned at) {
    __shared__ int here[64];
    here[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = here[threadIdx.x + at];
}
void shared_beyond(const int* x, int* y, unsigned at) {
    int* here = reinterpret_cast<int*>(dynamic_shared());
    here[threadIdx.x + at] = x[threadIdx.x];
    y[threadIdx.x] = here[threadIdx.x + at];
}
void no_barrier(const int* x, int* y, unsigned at) {
    __shared__ int here[64];
    here[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = here[threadIdx.x ^ at];
}
void no_barrier_before_writing(const int* x, int* y, unsigned at) {
    __shared__ int here[64];
    here[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = here[0];
    if (threadIdx.x == at) here[0] = 0;
}
void barriers(const int* x, int* y, unsigned at) {
    __shared__ int here[64];
    here[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    const int mine = here[threadIdx.x ^ at];
    __syncthreads();
    here[threadIdx.x] = mine;
    y[threadIdx.x] = here[threadIdx.x];
}
void one_leaves(const int* x, int* y, unsigned at) {
    if (threadIdx.x == at) return;
    __syncthreads();
    y[threadIdx.x] = x[0];
}
void half_a_warp(const unsigned* a, unsigned* y, unsigned at) {
    unsigned as[4] = {a[0]}, bs[2] = {a[0]};
    int sums[4] = {};
    if (threadIdx.x < at) mma(sums, as, bs);
    y[threadIdx.x] = sums[0];
}

template <bool WAIT, bool BARRIER> void copies(const int* x, int* y, unsigned at) {
    unsigned char* here = dynamic_shared();
    copy_async<16>(here + threadIdx.x * 16, x + threadIdx.x * 4, 12);
    commit_async();
    copy_async<16>(here + 512 + threadIdx.x * 16, x + threadIdx.x * 4, 16);
    commit_async();
    WAIT ? wait_async<1>() : wait_async<2>();
    if (BARRIER) __syncthreads();
    store(y + threadIdx.x * 4, load<Words<4>>(here + (threadIdx.x ^ at) * 16));
    wait_async<0>();
}
void copies_well(const int* x, int* y, unsigned at) { copies<true, true>(x, y, at); }
void copies_without_wait(const int* x, int* y, unsigned at) { copies<false, true>(x, y, at); }
void copies_without_barrier(const int* x, int* y, unsigned at) { copies<true, false>(x, y, at); }
void copies_for_nobody(const int* x, int*, unsigned) {
    copy_async<16>(dynamic_shared() + threadIdx.x * 16, x, 16);
    commit_async();
}

void strides(const int*, int*, unsigned at) { store(dynamic_shared() + threadIdx.x * 4 * at, Words<1>{{0}}); }
void wide_strides(const int*, int*, unsigned at) { store(dynamic_shared() + threadIdx.x * 16 * at, Words<4>{{0}}); }

void permutes(const unsigned* x, unsigned* y, unsigned which) { y[0] = prmt(x[0], x[1], which); }
"""
ENTRIES = re.findall(r"^void (\w+)\(", CODE, re.MULTILINE)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    return Emulated(CODE, ENTRIES, tmp_path_factory.mktemp("emulator"))


def launch(emulator: Emulated, entry: str, at: int, shared: int = 0, count: bool = False) -> tuple[np.ndarray, Banks]:
    """One warp; x and y hold 128 numbers each."""
    x, y = np.arange(128, dtype=np.int32), np.zeros(128, np.int32)
    banks = emulator.launch(entry, (1, 1, 1), (32, 1, 1), [x, y, at], out=[y], shared=shared, count=count)
    return y, banks


def fragments(a: np.ndarray, b: np.ndarray, sum: np.ndarray) -> list[np.ndarray]:
    """Registers of each lane by the formulas of the PTX ISA, "Matrix Fragments for mma.m16n8k16" and ".m16n8k32"."""
    each = 4 // a.itemsize
    registers = np.zeros((32, 4 * each), a.dtype), np.zeros((32, 2 * each), b.dtype), np.zeros((32, 4), sum.dtype)
    for lane in range(32):
        group, in_group = lane >> 2, lane % 4
        for i in range(4 * each):  # a_i
            row = group if i < each or 2 * each <= i < 3 * each else group + 8
            column = in_group * each + i % each + (0 if i < 2 * each else 4 * each)
            registers[0][lane, i] = a[row, column]
        for i in range(2 * each):  # b_i
            registers[1][lane, i] = b[in_group * each + i % each + (0 if i < each else 4 * each), group]
        for i in range(4):  # c_i
            registers[2][lane, i] = sum[group if i < 2 else group + 8, in_group * 2 + (i & 1)]
    return [registers[0].view(np.uint32), registers[1].view(np.uint32), registers[2]]


@pytest.mark.parametrize("name", ["f16", "bf16", "s8"])
def test_mma_of_fragments_as_in_the_isa(emulator: Emulated, name: str) -> None:
    rng = np.random.default_rng(7)
    k, dtype, wide = (32, np.dtype(np.int8), np.int32) if name == "s8" else (16, DTYPES[name], np.float32)
    a, b, c = (rng.integers(-100, 100, shape) for shape in ((16, k), (k, 8), (16, 8)))
    given = fragments(a.astype(dtype), b.astype(dtype), c.astype(wide))
    emulator.launch(f"mma_{name}", (1, 1, 1), (32, 1, 1), given)
    expected = fragments(a.astype(dtype), b.astype(dtype), (a @ b + c).astype(wide))[2]
    np.testing.assert_array_equal(given[2], expected)  # whole numbers below 2^24: no rounding


@pytest.mark.parametrize(("name", "unit"), [("s4", 1), ("s4_in_bytes", 256)])
def test_mma_of_four_bits_as_in_the_isa(emulator: Emulated, name: str, unit: int) -> None:
    """By the formulas of "Matrix Fragments for mma.m16n8k64"; all products of the extreme codes are among them."""
    rng = np.random.default_rng(7)
    a, b, c = (rng.integers(-8, 8, shape) for shape in ((16, 64), (64, 8), (16, 8)))
    a[0], b[:, 0], b[:, 1] = -8, -8, 7
    registers = np.zeros((32, 4), np.uint32), np.zeros((32, 2), np.uint32), np.zeros((2, 32, 4), np.int32)
    for lane in range(32):
        group, in_group = lane >> 2, lane % 4
        for i in range(32):  # a_i
            row = group if i < 8 or 16 <= i < 24 else group + 8
            column = in_group * 8 + (i & 7) + (0 if i < 16 else 32)
            registers[0][lane, i // 8] |= np.uint32(int(a[row, column]) % 16 << 4 * (i % 8))
        for i in range(16):  # b_i
            row = in_group * 8 + (i & 7) + (0 if i < 8 else 32)
            registers[1][lane, i // 8] |= np.uint32(int(b[row, group]) % 16 << 4 * (i % 8))
        for i in range(4):  # c_i
            at = group if i < 2 else group + 8, in_group * 2 + (i & 1)
            registers[2][:, lane, i] = c[at] * unit, (a @ b + c)[at] * unit
    given, expected = [*registers[:2], registers[2][0].copy()], registers[2][1]
    emulator.launch(f"mma_{name}", (1, 1, 1), (32, 1, 1), given)
    np.testing.assert_array_equal(given[2], expected)


def test_prmt(emulator: Emulated) -> None:
    x, y = np.array([0x03020100, 0x07060504], np.uint32), np.zeros(1, np.uint32)
    for which in (0x3210, 0x7654, 0x5410, 0x7632, 0x0000, 0x1735):
        emulator.launch("permutes", (1, 1, 1), (1, 1, 1), [x, y, which])
        assert int(y[0]) == int(f"0{which >> 12 & 7}0{which >> 8 & 7}0{which >> 4 & 7}0{which & 7}", 16)


@pytest.mark.parametrize(
    ("entry", "at", "says"),
    [
        ("reads_at", 128, "read of 4 bytes at byte 512 of argument 0, which has 512"),
        ("reads_before", 1, "read of 4 bytes at byte -4 of argument 0"),
        ("writes_at", 129, "write of 4 bytes at byte 516 of argument 1"),
        ("writes_at", 2**20, "write of 4 bytes at byte 4194304 of argument 1"),
        ("reads_wide", 1, "misaligned read of 16 bytes at byte 4 of argument 0"),
        ("reads_its_result", 0, "read of byte 4 of argument 1, which nobody has written"),
        ("shared_unwritten", 1, "of static shared memory, which nobody has written"),
        ("shared_beyond", 225, "write of 4 bytes at byte 1024 of dynamic shared memory, which has 1024"),
        ("no_barrier", 1, "which nobody has written|which thread 0 wrote since the last barrier"),
        ("no_barrier_before_writing", 31, "which another thread read since the last barrier"),
        ("one_leaves", 3, "different barriers"),
        ("half_a_warp", 16, "lanes of a warp at different operations"),
        ("copies_without_wait", 1, "which a cp.async is still to write"),
        ("copies_without_barrier", 1, "since the last barrier|is still to write|nobody has written"),
        ("copies_for_nobody", 0, "cp.async that nobody waits for"),
    ],
)
def test_finds(emulator: Emulated, entry: str, at: int, says: str) -> None:
    with pytest.raises(Problem, match=says):
        launch(emulator, entry, at, shared=1024)


def test_finds_nothing_where_nothing_is_wrong(emulator: Emulated) -> None:
    x = np.arange(128)
    np.testing.assert_array_equal(launch(emulator, "barriers", 1)[0][:32], x[:32] ^ 1)
    np.testing.assert_array_equal(launch(emulator, "reads_at", 127)[0][:32], 127)
    assert not launch(emulator, "no_barrier", 0)[0][32:].any()


def test_a_copy_ends_in_zeros(emulator: Emulated) -> None:
    got, _ = launch(emulator, "copies_well", 1, shared=1024)
    rows = np.arange(128).reshape(32, 4)[np.arange(32) ^ 1]
    rows[:, 3] = 0
    np.testing.assert_array_equal(got.reshape(32, 4), rows)


@pytest.mark.parametrize(
    ("entry", "at", "wavefronts", "conflicts"),
    [
        ("strides", 1, 1, 0),
        ("strides", 2, 2, 1),
        ("strides", 3, 1, 0),
        ("strides", 32, 32, 31),
        ("wide_strides", 1, 4, 0),
        ("wide_strides", 2, 8, 4),
    ],
)
def test_counts_bank_conflicts(emulator: Emulated, entry: str, at: int, wavefronts: int, conflicts: int) -> None:
    _, banks = launch(emulator, entry, at, shared=4096, count=True)
    assert banks == Banks(wavefronts, conflicts)


def test_kernels_keep_to_the_helpers() -> None:
    """A kernel's body is the same on both sides: only common/ tells a GPU from a CPU."""
    for kernel in CUDA.rglob("*.cu"):
        assert not re.search(r"^\s*#\s*if|\basm\b", kernel.read_text(), re.MULTILINE), kernel
