// Hadamard transforms of rows by one block of 256 threads: scale * x H^T, H = H_K (x) H_2^t, H_2^t[i, j] = (-1)^popcount(i & j).
//
// A lane holds every 32nd of the 256 numbers of its warp, so that loads meet neighbours: distances 1 to 16 by shuffles, 32 to 128 in
// registers. Longer rows go on in shared memory, three distances at a time, each a sum and a difference in f32: for K = 1 the bits of
// every other path.
// H_K goes through tensor cores: its signs are exact in bf16, and an f32 is the sum of three bf16, each the upper half of what is left.
// Their sums are f32: |error| <= (3 K + t + 2) * 2^-23 * scale * sum |x|. NaN spreads; for K > 1 infinity does so as NaN.
#pragma once
#include "common/memory.cuh"
#include "common/mma.cuh"
#include "common/pairs.cuh"
#include "common/warp.cuh"

// Distances 1, 2 and 4 among the first `count` registers.
__device__ inline void butterflies(float (&v)[8], unsigned count) {
#pragma unroll
    for (unsigned distance = 1; distance < 8; distance *= 2) {
        if (distance >= count) break;
#pragma unroll
        for (unsigned i = 0; i < 8; i++) {
            if (i & distance) continue;
            const float low = v[i], high = v[i + distance];
            v[i] = low + high, v[i + distance] = low - high;
        }
    }
}

// All distances below n, or 256 if that is less, among the 256 numbers of a warp.
__device__ inline void within_warp(float (&v)[8], unsigned n) {
#pragma unroll
    for (unsigned distance = 1; distance < 32; distance *= 2) {
        if (distance >= n) break;
        const bool second = threadIdx.x & distance;
#pragma unroll
        for (unsigned i = 0; i < 8; i++) {
            const float other = shuffle_xor(v[i], distance);
            v[i] = second ? other - v[i] : v[i] + other;
        }
    }
    butterflies(v, n / 32);
}

// Two numbers as three pairs of bf16 that add up to them.
__device__ inline void split_pair(float low, float high, unsigned (&pieces)[3]) {
#pragma unroll
    for (unsigned piece = 0; piece < 3; piece++) {
        pieces[piece] = prmt(bit_cast<unsigned>(low), bit_cast<unsigned>(high), 0x7632);
        low -= bit_cast<float>(bit_cast<unsigned>(low) & 0xffff0000), high -= bit_cast<float>(bit_cast<unsigned>(high) & 0xffff0000);
    }
}

// OUTER: K > 1.
template <bool OUTER> struct Hadamard {
    static constexpr unsigned THREADS = 256, WARPS = THREADS / 32, WARP = 256, MOST = 8;  // MOST tiles of H_K for a warp

    const unsigned* signs;  // [K, ceil(K / 32)]: bits that are set where H_K is -1
    unsigned order, log;    // K and t
    float scale;

    __device__ unsigned length() const { return order << log; }

    // Where a number lies in shared memory. The four lanes that read neighbouring rows of [K, 2^t] then meet different banks.
    __device__ unsigned place(unsigned at) const { return OUTER ? at + (at >> log) * 2 : at; }

    // Transforms `count` numbers, whole rows one after the other: takes them by read(at), gives them by write(at, value), each once.
    // A write may go to place(at) of `room`, which no one reads any more; nothing was written before the last barrier in here.
    template <class Read, class Write> __device__ void operator()(unsigned count, float* room, Read read, Write write) const {
        const unsigned span = 1u << log;
        const bool short_rows = !OUTER && span <= WARP;
        for (unsigned first = threadIdx.x / 32 * WARP; first < count; first += WARPS * WARP) {
            float v[8];
#pragma unroll
            for (unsigned i = 0; i < 8; i++) {
                const unsigned at = first + threadIdx.x % 32 + i * 32;
                v[i] = at < count ? read(at) : 0.f;
            }
            within_warp(v, span);
#pragma unroll
            for (unsigned i = 0; i < 8; i++) {
                const unsigned at = first + threadIdx.x % 32 + i * 32;
                if (at >= count) break;
                if (short_rows)
                    write(at, v[i] * scale);
                else
                    room[place(at)] = v[i];
            }
        }
        for (unsigned distance = WARP; distance < span; distance *= 8) {
            __syncthreads();
            const unsigned together = span / distance < 8 ? span / distance : 8;
            const bool last = !OUTER && distance * together == span;
            for (unsigned part = threadIdx.x; part < count / together; part += THREADS) {
                const unsigned at = part / distance * (distance * together) + part % distance;
                float v[8];
#pragma unroll
                for (unsigned i = 0; i < 8; i++) v[i] = i < together ? room[place(at + i * distance)] : 0.f;
                butterflies(v, together);
#pragma unroll
                for (unsigned i = 0; i < 8; i++) {
                    if (i >= together) break;
                    if (last)
                        write(at + i * distance, v[i] * scale);
                    else
                        room[place(at + i * distance)] = v[i];
                }
            }
        }
        if (OUTER) mix(count, room, write);
    }

    // H_K times every column of the rows, seen as [K, 2^t]. A warp takes eight columns, or its share of H_K for them.
    template <class Write> __device__ void mix(unsigned count, const float* room, Write write) const {
        const unsigned warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        const unsigned columns = count / order, tiles = (order + 15) / 16, words = (order + 31) / 32;
        unsigned shares = 1;
        while (shares * MOST < tiles) shares *= 2;
        const unsigned each = (tiles + shares - 1) / shares, first = warp % shares * each;
        const unsigned mine = first >= tiles ? 0 : tiles - first < each ? tiles - first : each;
        const auto at = [&](unsigned row, unsigned column) {
            return (column >> log) * length() + (row << log) + (column & ((1u << log) - 1));
        };
        __syncthreads();
        for (unsigned stripe = 0; stripe < columns; stripe += WARPS / shares * 8) {
            const unsigned column = stripe + warp / shares * 8;
            float sum[MOST][4] = {};
            for (unsigned k0 = 0; k0 < order && mine > 0; k0 += 32) {
                unsigned b[2][2][3];  // [step of mma][register][piece]
#pragma unroll
                for (unsigned i = 0; i < 4; i++) {
                    float pair[2];
                    for (unsigned one = 0; one < 2; one++) {
                        const unsigned k = k0 + i / 2 * 16 + t * 4 + i % 2 * 2 + one;
                        pair[one] = k < order && column + g < columns ? room[place(at(k, column + g))] : 0.f;
                    }
                    split_pair(pair[0], pair[1], b[i / 2][i % 2]);
                }
#pragma unroll
                for (unsigned tile = 0; tile < MOST; tile++) {
                    if (tile >= mine) break;
                    const unsigned row = (first + tile) * 16 + g;
                    const unsigned bits[2] = {row < order ? signs[row * words + k0 / 32] : 0,
                                              row + 8 < order ? signs[(row + 8) * words + k0 / 32] : 0};
#pragma unroll
                    for (unsigned step = 0; step < 2; step++) {
                        unsigned a[4];
                        for (unsigned i = 0; i < 4; i++) {
                            const unsigned two = bits[i % 2] >> (step * 16 + t * 4 + i / 2 * 2);
                            a[i] = one_pair(BF16{}) | (two << 15 & 0x8000) | (two << 30 & 0x80000000);
                        }
                        for (unsigned piece = 0; piece < 3; piece++) {
                            const unsigned values[2] = {b[step][0][piece], b[step][1][piece]};
                            mma(sum[tile], a, values, BF16{});
                        }
                    }
                }
            }
            __syncthreads();  // all have read the columns that are now written
#pragma unroll
            for (unsigned tile = 0; tile < MOST; tile++) {
                for (unsigned i = 0; i < 4; i++) {
                    const unsigned row = (first + tile) * 16 + i / 2 * 8 + g, c = column + t * 2 + i % 2;
                    if (tile < mine && row < order && c < columns) write(at(row, c), sum[tile][i] * scale);
                }
            }
        }
    }
};
