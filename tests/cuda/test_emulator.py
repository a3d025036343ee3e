"""The emulator itself: fragments as the PTX ISA lays them out, and each error that it is there to find."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest

from tests.cuda.test_emulated import DTYPES
from tests.emulator import CUDA, Banks, Emulated, Problem
from tests.oracles.dequantize_block import ELEMENTS, dequantize_block

CODE = """
#include "common/mma.cuh"
#include "common/memory.cuh"
#include "common/pairs.cuh"
#include "common/scaled_mma.cuh"
#include "common/tensor_memory.cuh"
#include "common/tile.cuh"
#include "common/wgmma.cuh"

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

// Scales of a lane: that for a, that for b.
template <unsigned BYTE, class T> void one_scaled_mma(
    const unsigned* a, const unsigned* b, const unsigned* scales, float* sum
) {
    const unsigned lane = threadIdx.x;
    unsigned as[4], bs[2];
    float sums[4];
    for (unsigned i = 0; i < 4; i++) as[i] = a[lane * 4 + i], sums[i] = sum[lane * 4 + i];
    for (unsigned i = 0; i < 2; i++) bs[i] = b[lane * 2 + i];
    mma<BYTE>(sums, as, bs, scales[lane * 2], scales[lane * 2 + 1], T{});
    for (unsigned i = 0; i < 4; i++) sum[lane * 4 + i] = sums[i];
}
void mma_nvfp4_0(const unsigned* a, const unsigned* b, const unsigned* scales, float* sum) {
    one_scaled_mma<0, Nvfp4>(a, b, scales, sum);
}
void mma_mxfp4_0(const unsigned* a, const unsigned* b, const unsigned* scales, float* sum) {
    one_scaled_mma<0, Mxfp4>(a, b, scales, sum);
}
void mma_mxfp4_2(const unsigned* a, const unsigned* b, const unsigned* scales, float* sum) {
    one_scaled_mma<2, Mxfp4>(a, b, scales, sum);
}
void mma_mxfp8_e4m3fn_0(const unsigned* a, const unsigned* b, const unsigned* scales, float* sum) {
    one_scaled_mma<0, Mx8<elements::E4m3fn>>(a, b, scales, sum);
}
void mma_mxfp8_e4m3fn_3(const unsigned* a, const unsigned* b, const unsigned* scales, float* sum) {
    one_scaled_mma<3, Mx8<elements::E4m3fn>>(a, b, scales, sum);
}
void mma_mxfp8_e5m2_1(const unsigned* a, const unsigned* b, const unsigned* scales, float* sum) {
    one_scaled_mma<1, Mx8<elements::E5m2>>(a, b, scales, sum);
}
void mma_mxfp8_e5m2_2(const unsigned* a, const unsigned* b, const unsigned* scales, float* sum) {
    one_scaled_mma<2, Mx8<elements::E5m2>>(a, b, scales, sum);
}
// 32 rows of `pitch` bytes, whose addresses the lanes give in this order.
void matrices(const unsigned char* x, const unsigned* rows, unsigned* y, unsigned pitch) {
    unsigned char* here = dynamic_shared();
    store(here + threadIdx.x * pitch, load<Words<4>>(x + threadIdx.x * 16));
    __syncthreads();
    unsigned to[4];
    load_matrices(here + rows[threadIdx.x] * pitch, to);
    for (unsigned i = 0; i < 4; i++) y[threadIdx.x * 4 + i] = to[i];
}
void matrices_of_half_a_warp(const int*, int* y, unsigned at) {
    unsigned to[4] = {};
    store(dynamic_shared() + threadIdx.x * 16, Words<4>{});
    __syncthreads();
    if (threadIdx.x < at) load_matrices(dynamic_shared() + threadIdx.x * 16, to);
    y[threadIdx.x] = to[0];
}

// Shared memory and descriptors as they are given; scales of rows of a, then of b.
template <unsigned BYTE, class T> void one_tensor_mma(
    const unsigned char* memory, const unsigned* d, const unsigned* scales, unsigned* sums, unsigned bytes,
    unsigned more
) {
    __shared__ unsigned allocated;
    __shared__ unsigned long long done;
    unsigned char* here = dynamic_shared();
    for (unsigned at = threadIdx.x * 16; at < bytes; at += 128 * 16) store(here + at, load<Words<4>>(memory + at));
    fence_async_proxy();
    if (threadIdx.x < 32) allocate<256>(&allocated);
    if (threadIdx.x == 0) begin_barrier(&done);
    __syncthreads();
    const unsigned quarter = threadIdx.x / 32 << 21, lane = threadIdx.x % 32, base = allocated;
    for (unsigned at = 0; at < 2; at++) {
        unsigned four[4];
        for (unsigned i = 0; i < 4; i++) four[i] = scales[at * 128 + i * 32 + lane];
        store_columns(base + quarter + 200 + at * 4, four);
    }
    for (unsigned column = 0; column < 128; column += 4) {
        unsigned four[4];
        for (unsigned i = 0; i < 4; i++) four[i] = sums[threadIdx.x * 128 + column + i];
        store_columns(base + quarter + column, four);
    }
    wait_stores();
    fence_before_sync();
    __syncthreads();
    if (threadIdx.x == 0) {
        fence_after_sync();
        unsigned long long a = d[1], b = d[3];
        a = a << 32 | d[0], b = b << 32 | d[2];
        multiply<BYTE>(base, a, b, base + 200, base + 204, more, T{});
        commit(&done);
    }
    wait_barrier(&done, 0);
    fence_after_sync();
    for (unsigned column = 0; column < 128; column += 16) {
        unsigned some[16];
        load_columns(base + quarter + column, some);
        for (unsigned i = 0; i < 16; i++) sums[threadIdx.x * 128 + column + i] = some[i];
    }
    __syncthreads();
    if (threadIdx.x < 32) deallocate<256>(base);
}
void tensor_nvfp4_0(
    const unsigned char* memory, const unsigned* d, const unsigned* scales, unsigned* sums, unsigned bytes,
    unsigned more
) {
    one_tensor_mma<0, Nvfp4>(memory, d, scales, sums, bytes, more);
}
void tensor_mxfp4_2(
    const unsigned char* memory, const unsigned* d, const unsigned* scales, unsigned* sums, unsigned bytes,
    unsigned more
) {
    one_tensor_mma<2, Mxfp4>(memory, d, scales, sums, bytes, more);
}
void tensor_mxfp8_e4m3fn_3(
    const unsigned char* memory, const unsigned* d, const unsigned* scales, unsigned* sums, unsigned bytes,
    unsigned more
) {
    one_tensor_mma<3, Mx8<elements::E4m3fn>>(memory, d, scales, sums, bytes, more);
}
void tensor_mxfp8_e5m2_1(
    const unsigned char* memory, const unsigned* d, const unsigned* scales, unsigned* sums, unsigned bytes,
    unsigned more
) {
    one_tensor_mma<1, Mx8<elements::E5m2>>(memory, d, scales, sums, bytes, more);
}
void instructions(unsigned* y) {
    y[0] = instruction_of<Nvfp4>(0), y[1] = instruction_of<Mxfp4>(2);
    y[2] = instruction_of<Mx8<elements::E4m3fn>>(3), y[3] = instruction_of<Mx8<elements::E5m2>>(1);
    const unsigned long long one = tensor_descriptor(dynamic_shared<1024>() + 8192);
    y[4] = unsigned(one), y[5] = unsigned(one >> 32);
}

// Four warps multiply tiles of zeros twice as they should, but for one thing.
enum : unsigned {
    GOOD, NO_WAIT_FOR_STORES, NO_FENCE_BEFORE, NO_FENCE_AFTER, NO_BARRIER_BETWEEN, UNFENCED_TILES, LOADED_EARLY,
    LOADED_WITHOUT_FENCE, LOADED_WITHOUT_WAIT, STORED_EARLY, TILE_WRITTEN_EARLY, TILE_WRITTEN_UNWAITED,
    STORED_UNWAITED, OTHER_QUARTER, BEYOND_ITS_COLUMNS, NOT_GIVEN_BACK, NOT_WAITED_FOR, NEVER_ARRIVES, QUARTERS_DIFFER,
    NO_SUMS, NO_SCALES, NO_POWER, NOT_INITIALISED, OTHER_SWIZZLE, NO_CONSTANTS, GIVEN_BACK_EARLY
};
void tensor_but(const unsigned char*, float* y, unsigned wrong) {
    __shared__ unsigned allocated;
    __shared__ unsigned long long done;
    unsigned char* here = dynamic_shared<1024>();
    for (unsigned at = threadIdx.x * 16; at < 32768; at += 128 * 16) store(here + at, Words<4>{});
    if (wrong != UNFENCED_TILES) fence_async_proxy();
    if (threadIdx.x < 32) wrong == NO_POWER ? allocate<48>(&allocated) : allocate<256>(&allocated);
    if (threadIdx.x == 0 && wrong != NOT_INITIALISED) begin_barrier(&done);
    __syncthreads();
    const unsigned warp = threadIdx.x / 32, quarter = warp << 21, base = allocated;
    const unsigned scales[4] = {wrong == QUARTERS_DIFFER ? warp : 0x7f7f7f7fu, 0, 0, 0};
    if (wrong == BEYOND_ITS_COLUMNS) store_columns(base + quarter + 254, scales);
    if (wrong != NO_SCALES) store_columns(base + (wrong == OTHER_QUARTER ? quarter ^ 1 << 21 : quarter) + 128, scales);
    if (wrong != NO_WAIT_FOR_STORES) wait_stores();
    if (wrong != NO_FENCE_BEFORE) fence_before_sync();
    if (wrong != NO_BARRIER_BETWEEN) __syncthreads();
    unsigned long long a = tensor_descriptor(here), b = tensor_descriptor(here + 16384);
    if (wrong == OTHER_SWIZZLE) a ^= 3ull << 61;
    if (wrong == NO_CONSTANTS) b ^= 1ull << 46;
    for (unsigned round = 0; round < 2; round++) {
        if (threadIdx.x == (wrong == NO_BARRIER_BETWEEN ? 127 : 0)) {
            if (wrong != NO_FENCE_AFTER) fence_after_sync();
            multiply<0>(base, a, b, base + 128, base + 128, round > 0 || wrong == NO_SUMS, Mx8<elements::E4m3fn>{});
            if (wrong != NOT_WAITED_FOR || round == 0) commit(&done);
        }
        unsigned sums[16];
        if (wrong == LOADED_EARLY) __syncthreads(), load_columns(base + quarter, sums);
        if (wrong == STORED_EARLY) __syncthreads(), store_columns(base + quarter + 128, scales);
        if (wrong == TILE_WRITTEN_EARLY) __syncthreads(), store(here + threadIdx.x * 16, Words<1>{});
        if (wrong == GIVEN_BACK_EARLY) break;
        const bool one_leaves = wrong == TILE_WRITTEN_UNWAITED && threadIdx.x == 65;
        const bool warp_leaves = (wrong == LOADED_WITHOUT_WAIT || wrong == STORED_UNWAITED) && warp == 2;
        if (!one_leaves && !warp_leaves) wait_barrier(&done, round);
        if (wrong == STORED_UNWAITED) store_columns(base + quarter + 128, scales), wait_stores();
        if (one_leaves) store(here + threadIdx.x * 16, Words<1>{});
        if (wrong != LOADED_WITHOUT_FENCE) fence_after_sync();
        load_columns(base + quarter, sums);
        y[threadIdx.x] = bit_cast<float>(sums[0]);
        __syncthreads();
    }
    if (wrong == NEVER_ARRIVES) wait_barrier(&done, 0);
    if (threadIdx.x < 32 && wrong != NOT_GIVEN_BACK) deallocate<256>(base);
}

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

// Shared memory as it is given, and descriptors as theirs: nothing of common/tile.cuh.
template <class T, class Sum> void one_wgmma(
    const unsigned char* memory, unsigned bytes, const unsigned* d, Sum* sum, bool more
) {
    unsigned char* here = dynamic_shared();
    for (unsigned at = threadIdx.x * 16; at < bytes; at += 128 * 16) store(here + at, load<Words<4>>(memory + at));
    fence_async_proxy();
    __syncthreads();
    unsigned long long a = d[1], b = d[3];
    a = a << 32 | d[0], b = b << 32 | d[2];
    Sum mine[64];
    for (unsigned i = 0; i < 64; i++) mine[i] = sum[threadIdx.x * 64 + i];
    wgmma_fence();
    wgmma(mine, a, b, more, T{});
    wgmma_commit();
    wgmma_wait<0>(mine);
    for (unsigned i = 0; i < 64; i++) sum[threadIdx.x * 64 + i] = mine[i];
}
void wgmma_e4m3fn(const unsigned char* memory, const unsigned* d, float* sum, unsigned bytes, unsigned more) {
    one_wgmma<E4m3>(memory, bytes, d, sum, more);
}
void wgmma_e5m2(const unsigned char* memory, const unsigned* d, float* sum, unsigned bytes, unsigned more) {
    one_wgmma<E5m2>(memory, bytes, d, sum, more);
}
void wgmma_s8(const unsigned char* memory, const unsigned* d, int* sum, unsigned bytes, unsigned more) {
    one_wgmma<S8>(memory, bytes, d, sum, more);
}
void places(unsigned* places, unsigned* descriptors) {
    const unsigned row = threadIdx.x;
    for (unsigned byte = 0; byte < 128; byte++) places[row * 128 + byte] = Tile<128, 128, true>::place(row, byte);
    if (threadIdx.x > 0) return;
    const unsigned long long one = descriptor(dynamic_shared<1024>() + 8192);
    descriptors[0] = unsigned(one), descriptors[1] = unsigned(one >> 32);
}

// Two warpgroups multiply tiles of zeros as they should, but for one thing.
enum : unsigned {
    WELL, NO_FENCE, TOUCHED, READ_EARLY, WRITTEN_EARLY, NO_PROXY_FENCE, LATE_PROXY_FENCE, NO_BARRIER, NO_TILE, COPIED,
    OVERWRITTEN, OVERWRITTEN_LATER, NOT_AT_1024, NO_SWIZZLE, BEYOND, DIFFERENT, ONE_WARP_LEAVES, NOBODY_WAITS,
    WAITS_FOR_THE_OTHER
};
void wgmma_but(const unsigned char* x, float* y, unsigned wrong) {
    unsigned char* here = dynamic_shared<1024>();
    for (unsigned at = threadIdx.x * 16; at < 24576; at += 256 * 16)
        if (wrong != NO_TILE || at < 16384) store(here + at, Words<4>{});
    if (wrong == COPIED) copy_async<16>(here + threadIdx.x * 16, x, 16), commit_async();
    if (wrong != NO_PROXY_FENCE && wrong != LATE_PROXY_FENCE) fence_async_proxy();
    if (wrong != NO_BARRIER) __syncthreads();
    if (wrong == LATE_PROXY_FENCE) fence_async_proxy();
    if (wrong == ONE_WARP_LEAVES && threadIdx.x >= 224) return;
    unsigned long long a = descriptor(here), b = descriptor(here + 8192);
    if (wrong == NOT_AT_1024) a += 8;
    if (wrong == NO_SWIZZLE) a ^= 1ull << 62;
    if (wrong == BEYOND) b += 1024 / 16;
    if (wrong == DIFFERENT) a += threadIdx.x / 32 % 2 * 2;
    float sums[2][64] = {};
    if (wrong != NO_FENCE) wgmma_fence();
    wgmma(sums[0], a, b, false, E4m3{});
    wgmma(sums[0], a + 2, b + 2, true, E4m3{});
    wgmma_commit();
    if (wrong == READ_EARLY) y[threadIdx.x] = sums[0][1];
    if (wrong == WRITTEN_EARLY) sums[0][1] = y[threadIdx.x] = 0;
    if (wrong == OVERWRITTEN && threadIdx.x == 200) store(here + 1024, Words<1>{});
    wgmma(sums[1], a, b, false, E4m3{});
    wgmma_commit();
    if (wrong == NOBODY_WAITS) return;
    wrong == WAITS_FOR_THE_OTHER ? wgmma_wait<1>(sums[1]) : wgmma_wait<1>(sums[0]);
    y[threadIdx.x] = wrong == WAITS_FOR_THE_OTHER ? sums[1][0] : sums[0][0];
    if (wrong != TOUCHED) wgmma_fence();
    wgmma(sums[0], a, b, true, E4m3{});
    wgmma_commit();
    wgmma_wait<0>(sums[0]);
    if (wrong != OVERWRITTEN_LATER) __syncthreads();
    if (threadIdx.x == 200) store(here + 1024, Words<1>{});
    wait_async<0>();
}

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


#: Bits, codes of a block and the dtype of its scale; the formats of kind::mxf4nvf4, kind::mxf4 and kind::mxf8f6f4.
BLOCKED = {
    "nvfp4": ("e2m1", 16, "e4m3fn"),
    "mxfp4": ("e2m1", 32, "e8m0"),
    "mxfp8_e4m3fn": ("e4m3fn", 32, "e8m0"),
    "mxfp8_e5m2": ("e5m2", 32, "e8m0"),
}


def scaled_fragments(a: np.ndarray, b: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Registers of each lane of codes [16, K] and [K, 8]: "Matrix Fragments for mma.m16n8k64" (.e2m1), ".m16n8k32"."""
    each, of_a, of_b = 32 // bits, np.zeros((32, 4), np.uint32), np.zeros((32, 2), np.uint32)
    for lane in range(32):
        group, in_group = lane >> 2, lane % 4
        for i in range(4 * each):  # a_i
            row = group if i < each or 2 * each <= i < 3 * each else group + 8
            column = in_group * each + i % each + (0 if i < 2 * each else 4 * each)
            of_a[lane, i // each] |= np.uint32(int(a[row, column]) << bits * (i % each))
        for i in range(2 * each):  # b_i
            row = in_group * each + i % each + (0 if i < each else 4 * each)
            of_b[lane, i // each] |= np.uint32(int(b[row, group]) << bits * (i % each))
    return of_a, of_b


def scale_registers(of_a: np.ndarray, of_b: np.ndarray, byte: int, other: int) -> np.ndarray:
    """Those of each lane, of scales [16, S] and [S, 8], by "Block Scaling for mma.sync" with thread-id 0: lanes 0 and 1
    of four have those of a, lane 0 those of b, S bytes from `byte` on. Whatever is not looked at is `other`.
    """
    registers = np.full((32, 2, 4), other, np.uint8)
    for lane in range(32):
        for i in range(of_a.shape[1]):
            if lane % 4 < 2:
                registers[lane, 0, byte + i] = of_a[lane // 4 + 8 * (lane % 4), i]
            if lane % 4 == 0:
                registers[lane, 1, byte + i] = of_b[i, lane // 4]
    return registers.view(np.uint32)[..., 0]


@pytest.mark.parametrize("entry", re.findall(r"void (mma_(?:nv|mx)\w+)\(", CODE))
def test_mma_of_blocks_as_in_the_isa(emulator: Emulated, entry: str) -> None:
    """Scales that nobody is to look at are NaN, and so are the codes of other widths."""
    format, _, byte = entry.removeprefix("mma_").rpartition("_")
    element, block, scale_dtype = BLOCKED[format]
    bits, rng = ELEMENTS[element], np.random.default_rng(len(entry))
    k = 256 // bits
    count, nan = k // block, 0xFF if scale_dtype == "e8m0" else 0x7F
    largest = {"e2m1": 7, "e4m3fn": 0x7E, "e5m2": 0x7B}[element]
    codes = [rng.integers(0, largest + 1, shape) | rng.integers(0, 2, shape) << bits - 1 for shape in ((16, k), (8, k))]
    one = 127 if scale_dtype == "e8m0" else 0x38
    scales = [rng.integers(one - 8, one + 8, (rows, count), np.uint8) for rows in (16, 8)]
    wide = [
        dequantize_block(each.astype(np.uint8), scale, element, block, scale_dtype).astype(np.float64)
        for each, scale in zip(codes, scales, strict=True)
    ]
    start = rng.standard_normal((16, 8)).astype(np.float32)
    want = (wide[0] @ wide[1].T + start).astype(np.float32)
    sums = np.zeros((2, 32, 4), np.float32)
    for lane in range(32):
        for i in range(4):  # c_i
            at = (lane >> 2) + (0 if i < 2 else 8), lane % 4 * 2 + (i & 1)
            sums[0, lane, i], sums[1, lane, i] = start[at], want[at]
    registers = scale_registers(scales[0], scales[1].T, int(byte), nan)
    got = sums[0].copy()
    emulator.launch(entry, (1, 1, 1), (32, 1, 1), [*scaled_fragments(codes[0], codes[1].T, bits), registers, got])
    np.testing.assert_array_equal(got, sums[1])
    # NaN of one scale is of its row alone, and of its column.
    for of, lane in ((0, 4 * 3 + 1), (1, 4 * 5)):
        changed, got = registers.copy(), sums[0].copy()
        changed[lane, of] |= np.uint32(nan << 8 * int(byte))
        emulator.launch(entry, (1, 1, 1), (32, 1, 1), [*scaled_fragments(codes[0], codes[1].T, bits), changed, got])
        lost = np.zeros((32, 4), bool)
        for each in range(32):
            for i in range(4):
                row, column = (each >> 2) + (0 if i < 2 else 8), each % 4 * 2 + (i & 1)
                lost[each, i] = row == 11 if of == 0 else column == 5
        np.testing.assert_array_equal(np.isnan(got), lost)
        np.testing.assert_array_equal(got[~lost], sums[1][~lost])


def test_matrices_as_in_the_isa(emulator: Emulated) -> None:
    """ldmatrix.x4: lane i gives row i % 8 of matrix i // 8, and gets elements 2 (i % 4) and the next of row i // 4."""
    x, rng = np.arange(256, dtype=np.uint16).view(np.uint8), np.random.default_rng(0)
    rows = np.concatenate([8 * eight + rng.permutation(8) for eight in (2, 0, 3, 1)])
    elements, y = x.view(np.uint16).reshape(32, 8)[rows], np.zeros((32, 4), np.uint32)
    for pitch, conflicts in ((16, 0), (128, 28)):
        banks = emulator.launch(
            "matrices",
            (1, 1, 1),
            (32, 1, 1),
            [x, rows.astype(np.uint32), y, pitch],
            out=[y],
            shared=32 * pitch,
            count=True,
        )
        for lane in range(32):
            for i in range(4):
                low, high = elements[8 * i + lane // 4, 2 * (lane % 4) :][:2]
                assert y[lane, i] == int(low) | int(high) << 16
        assert banks.conflicts == 2 * conflicts  # of the stores, too


#: Where the tiles of a test of wgmma lie, eights of rows of one between those of the other; addresses begin at 1024.
TILES = {"a": (64, 0, 2048), "b": (128, 1024, 2048)}
WINDOW, BYTES = 1024, 16 * 2048


def swizzled(tiles: dict[str, np.ndarray], places: dict[str, tuple[int, int, int]] = TILES) -> np.ndarray:
    """Shared memory with both tiles, 128 bytes a row, by "128B swizzle": chunk c of row r of eight at c xor r."""
    memory = np.zeros(BYTES, np.uint8)
    for name, (rows, start, stride) in places.items():
        for row in range(rows):
            for chunk in range(8):
                at = start + row // 8 * stride + row % 8 * 128 + (chunk ^ row % 8) * 16
                memory[at : at + 16] = tiles[name][row, 16 * chunk :][:16]
    return memory


def descriptors(step: int) -> np.ndarray:
    """Two words for each tile, from byte 32 * step of its rows on, by the table "Matrix Descriptor Format"."""
    words = []
    for _, start, stride in TILES.values():
        bits = (WINDOW + start + 32 * step) >> 4 | stride >> 4 << 32 | 1 << 62
        words += [bits % 2**32, bits >> 32]
    return np.array(words, np.uint32)


def accumulators(matrix: np.ndarray) -> np.ndarray:
    """[64, 128] as [thread, register], by the figure "Fragment layout for accumulator matrix D" of wgmma .m64nNk32."""
    registers = np.zeros((128, 64), matrix.dtype)
    for thread in range(128):
        for i in range(64):
            row = 16 * (thread // 32) + thread % 32 // 4 + 8 * (i // 2 % 2)
            registers[thread, i] = matrix[row, 8 * (i // 4) + 2 * (thread % 4) + i % 2]
    return registers


def wgmma(
    emulator: Emulated, name: str, tiles: dict[str, np.ndarray], sum: np.ndarray, step: int, more: int
) -> np.ndarray:
    """Registers after one wgmma on bytes 32 * step to 32 * step + 31 of the rows of tiles a [64, 128], b [128, 128]."""
    got = accumulators(sum)
    args = [swizzled(tiles), descriptors(step), got, BYTES, more]
    emulator.launch(f"wgmma_{name}", (1, 1, 1), (128, 1, 1), args, shared=BYTES)
    return got


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("more", [0, 1])
def test_wgmma_of_bytes_as_in_the_isa(emulator: Emulated, step: int, more: int) -> None:
    rng = np.random.default_rng(step)
    a, b = (rng.integers(-128, 128, (rows, 128)).astype(np.int8) for rows in (64, 128))
    a[0], b[0], b[1], c = -128, -128, 127, rng.integers(-(2**20), 2**20, (64, 128)).astype(np.int32)
    part = slice(32 * step, 32 * step + 32)
    want = a[:, part].astype(np.int32) @ b[:, part].T.astype(np.int32) + more * c
    got = wgmma(emulator, "s8", {"a": a.view(np.uint8), "b": b.view(np.uint8)}, c, step, more)
    np.testing.assert_array_equal(got, accumulators(want))


def floats(format: str) -> list[tuple[int, int]]:
    """Each code as a whole number times two to an exponent, that of the smallest normal number for a subnormal."""
    bits, bias = {"e4m3fn": (3, 7), "e5m2": (2, 15)}[format]
    found = []
    for code in range(256):
        field, fraction = code % 128 >> bits, code % 2**bits
        size = fraction + (2**bits if field else 0)
        found.append((-size if code > 127 else size, max(field, 1) - bias))
    return found


def cut(value: Fraction, exponent: int) -> Fraction:
    """Towards zero, to a multiple of 2^(exponent - 13)."""
    unit = Fraction(2) ** (exponent - 13)
    return int(value / unit) * unit


def exponent_of(value: Fraction) -> int:
    return next(e for e in range(200, -200, -1) if abs(value) >= Fraction(2) ** e)


@pytest.mark.parametrize("format", ["e4m3fn", "e5m2"])
def test_wgmma_cuts_its_sums_as_measured(emulator: Emulated, format: str) -> None:
    """By the text of arXiv 2511.10909, in fractions: aligned to the largest, 13 bits kept of each and of the sum."""
    rng, bits = np.random.default_rng(5), {"e4m3fn": 3, "e5m2": 2}[format]
    last = {"e4m3fn": 126, "e5m2": 123}[format]
    a, b = ((rng.integers(0, last + 1, (rows, 128)) | rng.integers(0, 2, (rows, 128)) << 7) for rows in (64, 128))
    a[:, 40:], b[3] = rng.integers(0, 2**bits, (64, 88)), 0  # subnormals; zeros
    c = (rng.standard_normal((64, 128)) * 2.0 ** rng.integers(-20, 20, (64, 128))).astype(np.float32)
    c[:, 5] = 0
    tiles, known = {"a": a.astype(np.uint8), "b": b.astype(np.uint8)}, floats(format)
    got = wgmma(emulator, format, tiles, c, 1, 1)
    place = accumulators(np.arange(64 * 128).reshape(64, 128))
    inexact = 0
    for row, column in [(r, n) for r in range(0, 64, 7) for n in (*range(10), 64, 127)]:
        addends = (
            [(Fraction(float(c[row, column])), exponent_of(Fraction(float(c[row, column]))))] if c[row, column] else []
        )
        for k in range(32, 64):
            (x, e), (w, f) = known[a[row, k]], known[b[column, k]]
            if x and w:
                addends.append((Fraction(x * w) * Fraction(2) ** (e + f - 2 * bits), e + f))
        largest = max((each for _, each in addends), default=0)
        total = sum((cut(value, largest) for value, _ in addends), Fraction(0))
        want = cut(total, exponent_of(total)) if total else total
        inexact += want != sum(value for value, _ in addends)
        assert Fraction(float(got[place == row * 128 + column][0])) == want, (row, column)
    assert inexact > 20


def test_tiles_lie_as_the_swizzle_has_them(emulator: Emulated) -> None:
    """And their descriptors are those of the table."""
    places, words = np.zeros((128, 128), np.uint32), np.zeros(2, np.uint32)
    emulator.launch("places", (1, 1, 1), (128, 1, 1), [places, words], out=[places, words], shared=16384)
    plain = np.arange(128 * 128).reshape(128, 128)
    np.testing.assert_array_equal(places, plain ^ (plain >> 7 & 7) << 4)
    bits = int(words[1]) << 32 | int(words[0])
    assert (bits % 2**14, bits >> 32 & 0x3FFF, bits >> 62) == ((WINDOW + 8192) // 16, 1024 // 16, 1)
    assert bits >> 46 & 0xFFFF == 0  # with the base offset, that of a pattern which begins at a multiple of 1024


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("NO_FENCE", "without wgmma.fence"),
        ("TOUCHED", "accumulators that were touched since the last wgmma.fence"),
        ("READ_EARLY", "read of an accumulator that a wgmma is still to write"),
        ("WRITTEN_EARLY", "write of an accumulator that a wgmma is still to write"),
        ("NO_PROXY_FENCE", "without fence.proxy.async and a barrier"),
        ("LATE_PROXY_FENCE", "without fence.proxy.async and a barrier"),
        ("NO_BARRIER", "which nobody has written|wrote since the last barrier"),
        ("NO_TILE", "wgmma of byte 16384 of dynamic shared memory, which nobody has written"),
        ("COPIED", "which a cp.async is still to write"),
        ("OVERWRITTEN", "write of byte 1024 of dynamic shared memory, which a wgmma is still to read"),
        ("OVERWRITTEN_LATER", "which another thread read since the last barrier|a wgmma is still to read"),
        ("NOT_AT_1024", "no multiple of 1024"),
        ("NO_SWIZZLE", "swizzle 0"),
        ("BEYOND", "wgmma of byte 24576 of dynamic shared memory"),
        ("DIFFERENT", "different descriptors"),
        ("ONE_WARP_LEAVES", "lanes of a warp at different operations"),
        ("NOBODY_WAITS", "ends with a wgmma that nobody waits for"),
        ("WAITS_FOR_THE_OTHER", "read of an accumulator that a wgmma is still to write"),
    ],
)
def test_finds_in_wgmma(emulator: Emulated, wrong: str, says: str) -> None:
    with pytest.raises(Problem, match=says):
        wrongly(emulator, wrong)


def test_finds_nothing_in_wgmma_where_nothing_is_wrong(emulator: Emulated) -> None:
    assert not wrongly(emulator, "WELL").any()


def wrongly(emulator: Emulated, wrong: str) -> np.ndarray:
    """What `wgmma_but` gives: two warpgroups, 24 KiB of shared memory."""
    (names,) = re.findall(r"WELL,[^}]*", CODE)
    x, y = np.zeros(16, np.uint8), np.ones(256, np.float32)
    args = [x, y, re.findall(r"\w+", names).index(wrong)]
    emulator.launch("wgmma_but", (1, 1, 1), (256, 1, 1), args, out=[y], shared=24576)
    return y


#: Where the tiles of a test of tcgen05 lie, as `TILES`.
PAIR = {"a": (128, 0, 2048), "b": (128, 1024, 2048)}


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("entry", re.findall(r"void (tensor_(?:nv|mx)\w+)\(", CODE))
def test_tcgen05_of_blocks_as_in_the_isa(emulator: Emulated, entry: str, more: int) -> None:
    """Descriptors, lanes and bytes of scales by the text; what a product does not take of a register is NaN."""
    format, _, byte = entry.removeprefix("tensor_").rpartition("_")
    element, block, scale_dtype = BLOCKED[format]
    bits, rng = ELEMENTS[element], np.random.default_rng(len(entry))
    k = 256 // bits
    count, nan = k // block, 0xFF if scale_dtype == "e8m0" else 0x7F
    largest, one = {"e2m1": 7, "e4m3fn": 0x7E, "e5m2": 0x7B}[element], 127 if scale_dtype == "e8m0" else 0x38
    wide, tiles, scales = [], {}, np.full((2, 128, 4), nan, np.uint8)
    for at, name in enumerate("ab"):
        codes = rng.integers(0, largest + 1, (128, k)) | rng.integers(0, 2, (128, k)) << bits - 1
        scale = rng.integers(one - 8, one + 8, (128, count), np.uint8)
        scales[at, :, int(byte) : int(byte) + count] = scale
        wide.append(dequantize_block(codes.astype(np.uint8), scale, element, block, scale_dtype).astype(np.float64))
        both = codes if bits == 8 else codes[:, ::2] | codes[:, 1::2] << 4
        tiles[name] = np.full((128, 128), 0x55, np.uint8)
        tiles[name][:, 64:96] = both  # the third 32 bytes of each row
    start = rng.standard_normal((128, 128)).astype(np.float32)
    words = []
    for _, first, stride in PAIR.values():
        descriptor = (WINDOW + first + 64) >> 4 | stride >> 4 << 32 | 1 << 46 | 2 << 61
        words += [descriptor % 2**32, descriptor >> 32]
    args = [swizzled(tiles, PAIR), np.array(words, np.uint32), scales.view(np.uint32), start.copy(), BYTES, more]
    emulator.launch(entry, (1, 1, 1), (128, 1, 1), args, shared=BYTES)
    np.testing.assert_array_equal(args[3], (wide[0] @ wide[1].T + more * start).astype(np.float32))


def test_instruction_descriptors_are_those_of_the_tables(emulator: Emulated) -> None:
    """ "Instruction descriptor format for .kind::mxf8f6f4", and for .kind::mxf4 and .kind::mxf4nvf4."""
    words = np.zeros(6, np.uint32)
    emulator.launch("instructions", (1, 1, 1), (1, 1, 1), [words], out=[words], shared=16384)
    for got, (byte, element, power) in zip(words, ((0, 1, 0), (2, 1, 1), (3, 0, 1), (1, 1, 1)), strict=False):
        fields = {4: byte, 7: element, 10: element, 17: 128 >> 3, 23: power, 27: 128 >> 7, 29: byte}
        assert int(got) == sum(value << at for at, value in fields.items())
    bits = int(words[5]) << 32 | int(words[4])
    assert (bits % 2**14, bits >> 32 & 0x3FFF, bits >> 46 & 7, bits >> 61) == ((WINDOW + 8192) // 16, 1024 // 16, 1, 2)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("NO_WAIT_FOR_STORES", "without tcgen05.wait::st and the fences"),
        ("NO_FENCE_BEFORE", "without tcgen05.wait::st and the fences"),
        ("NO_FENCE_AFTER", "without tcgen05.wait::st and the fences"),
        ("NO_BARRIER_BETWEEN", "without tcgen05.wait::st and the fences|nobody has written"),
        ("UNFENCED_TILES", "tcgen05.mma of byte 0 .* without fence.proxy.async and a barrier"),
        ("LOADED_EARLY", "load from tensor memory that a tcgen05.mma is still to write"),
        ("LOADED_WITHOUT_FENCE", "load of a sum without a wait and tcgen05.fence::after_thread_sync"),
        ("LOADED_WITHOUT_WAIT", "load of a sum without a wait|that nobody has written"),
        ("STORED_EARLY", "store to tensor memory that a tcgen05.mma is still to read"),
        ("TILE_WRITTEN_EARLY", "which a tcgen05.mma is still to read"),
        ("TILE_WRITTEN_UNWAITED", "that this thread has not waited for|thread 65 wrote since the last barrier"),
        ("STORED_UNWAITED", "without a wait for the tcgen05.mma that used|without tcgen05.wait::st and the fences"),
        ("OTHER_QUARTER", "where this warp has those from"),
        ("BEYOND_ITS_COLUMNS", "column 288, which this block does not have"),
        ("NOT_GIVEN_BACK", "tensor memory that nobody has given back"),
        ("NOT_WAITED_FOR", "mbarrier that nobody arrives at"),
        ("NEVER_ARRIVES", "mbarrier that nobody arrives at"),
        ("QUARTERS_DIFFER", "differ from one quarter"),
        ("NO_SUMS", "adds to sums that nobody has written"),
        ("NO_SCALES", "of scales that nobody has written"),
        ("NO_POWER", "48 columns of tensor memory"),
        ("NOT_INITIALISED", "mbarrier that nobody has initialised|which nobody has written"),
        ("OTHER_SWIZZLE", "swizzle 1"),
        ("NO_CONSTANTS", "without the constants of tcgen05"),
        ("GIVEN_BACK_EARLY", "gives back tensor memory that a tcgen05.mma is still to use"),
    ],
)
def test_finds_in_tcgen05(emulator: Emulated, wrong: str, says: str) -> None:
    for reverse in (False, True):
        with pytest.raises(Problem, match=says):
            tensor_wrongly(emulator, wrong, reverse)


def test_finds_nothing_in_tcgen05_where_nothing_is_wrong(emulator: Emulated) -> None:
    for reverse in (False, True):
        assert not tensor_wrongly(emulator, "GOOD", reverse).any()


def tensor_wrongly(emulator: Emulated, wrong: str, reverse: bool) -> np.ndarray:
    """What `tensor_but` gives."""
    (names,) = re.findall(r"GOOD,[^}]*", CODE)
    x, y = np.zeros(16, np.uint8), np.ones(128, np.float32)
    args = [x, y, re.findall(r"\w+", names).index(wrong)]
    emulator.launch("tensor_but", (1, 1, 1), (128, 1, 1), args, out=[y], shared=32768, reverse=reverse)
    return y


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
        ("matrices_of_half_a_warp", 16, "lanes of a warp at different operations"),
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
