// Tiles of a row-major matrix in shared memory: ROWS x BYTES of it, filled by cp.async, read as fragments of mma, or by wgmma and tcgen05.
//
// Which k sits in which place of a fragment is free, as long as both operands agree: a product sums over k. So lane t of the four that
// share a row takes neighbouring bytes of it, a quarter of a chunk, by one wide load, and no ldmatrix and no packing of the weights
// is needed:
//                     chunk 0            chunk 1                    a row of 128 bytes, two chunks of 64: 32 f16 or 64 int8
//               | t0 | t1 | t2 | t3 | t0 | t1 | t2 | t3 |           16 bytes each
// The rows that a wide load reads at once would meet in the same banks: units of 16 bytes change halves from one stretch of
// 128 bytes to the next (`place`). Eight rows of a chunk then lie in different banks for rows of 32, 64 and 128 bytes.
//
// wgmma and tcgen05 want another order, the 128-byte swizzle of the PTX ISA: of a row's eight units the u-th lies where the
// (u ^ row % 8)-th would, and a tile begins at a multiple of 1024 bytes. Eight rows of one unit, as ldmatrix reads them, lie in
// different banks there, too.
#pragma once
#include "common/memory.cuh"

template <unsigned ROWS_, unsigned BYTES_, bool WGMMA_ = false> struct Tile {
    static constexpr bool WGMMA = WGMMA_;
    static constexpr unsigned ROWS = ROWS_, BYTES = BYTES_, SIZE = ROWS * BYTES;
    static constexpr unsigned UNIT = BYTES % 8 ? 4 : BYTES % 16 ? 8 : 16, UNITS = BYTES / UNIT;  // of a copy
    static_assert(BYTES % 4 == 0 && BYTES <= 128, "a row is copied in units of 4, 8 or 16 bytes");
    static_assert(!WGMMA || (BYTES == 128 && ROWS % 8 == 0), "the swizzle's pattern is eight rows of 128 bytes");

    // Where a byte of the tile lies. Rows that are no power of two of bytes are spread over the banks as they are.
    __device__ static unsigned place(unsigned row, unsigned byte) {
        if constexpr (WGMMA) return row * BYTES + (byte ^ row % 8 * UNIT);
        const unsigned turn = UNIT == 16 && UNITS > 1 ? row / (8 / UNITS) % 2 * (BYTES / 2) : 0;
        return row * BYTES + (byte ^ turn);
    }

    // Starts copying from byte `byte` on of the rows of an operand; what lies outside becomes zero.
    // Rows of the matrix that do not begin where a copy may are read byte by byte, at once.
    template <unsigned THREADS, class Rows> __device__ static void fill(unsigned char* tile, const Rows& of, size_t byte) {
        const bool aligned = (size_t(of.data) | of.bytes) % UNIT == 0;
#pragma unroll
        for (unsigned first = 0; first < ROWS * UNITS; first += THREADS) {
            const unsigned at = first + threadIdx.x, r = at / UNITS, u = at % UNITS * UNIT;
            if (ROWS * UNITS % THREADS && at >= ROWS * UNITS) break;
            const size_t begin = byte + u, row = of.at(r);
            const unsigned valid = row >= of.rows || begin >= of.bytes ? 0 : of.bytes - begin < UNIT ? unsigned(of.bytes - begin) : UNIT;
            const unsigned char* source = static_cast<const unsigned char*>(of.data) + (valid ? row * of.bytes + begin : 0);
            unsigned char* to = tile + place(r, u);
            if (aligned) {
                copy_async<UNIT>(to, source, valid);
            } else {
                Words<UNIT / 4> unit = {};
#pragma unroll
                for (unsigned each = 0; each < UNIT; each++)
                    if (each < valid) unit.word[each / 4] |= unsigned(source[each]) << each % 4 * 8;
                store(to, unit);
            }
        }
    }
};

// A matrix as one operand of a product: `rows` rows of `bytes` bytes, of which a block reads those from `row` on.
struct Operand {
    const void* data;
    unsigned rows;
    size_t bytes;
    unsigned row;
    // Which row of the matrix is row r of the tile; from `rows` on there is none.
    __device__ unsigned at(unsigned r) const { return row + r; }
};

// The tiles of both operands in shared memory, STAGES pairs of them one behind the other, filled ahead of their use. BUSY of them are
// being read: the stage that was taken last, and for wgmma, which still reads it when the next one is taken, the one before.
template <class X, class W, unsigned STAGES, unsigned THREADS, class Rows = Operand, class Columns = Operand> struct Pipeline {
    static constexpr unsigned BUSY = X::WGMMA ? 2 : 1, AHEAD = STAGES - BUSY;  // stages that are filled in front of the first
    Rows x;
    Columns w;
    unsigned char* stages = dynamic_shared<X::WGMMA ? 1024 : 16>();

    __device__ unsigned char* at(unsigned stage) const { return stages + stage % STAGES * (X::SIZE + W::SIZE); }

    // Starts copying the tiles of a stage, from these bytes of the rows on; behind the end of K there are none.
    __device__ void fill(unsigned stage, bool inside, size_t x_byte, size_t w_byte) const {
        if (inside) {
            X::template fill<THREADS>(at(stage), x, x_byte);
            W::template fill<THREADS>(at(stage) + X::SIZE, w, w_byte);
        }
        commit_async();  // of nothing, too: a wait counts groups
    }

    // The tile of x of a stage, X::SIZE in front of that of w, once both are there for all. Stage + AHEAD may then be filled: what lay
    // there has been read by all.
    __device__ const unsigned char* take(unsigned stage) const {
        wait_async<AHEAD - 1>();
        if constexpr (X::WGMMA) fence_async_proxy();
        __syncthreads();
        return at(stage);
    }
};
