// block_scaled_pair: y[m, n] = tensor_scale * sum_k X[m, k] * W[n, k], both of small floats or integers in blocks that share a scale:
// X[m, k] = x[m, k] * x_scale[m, k / block], W alike.
//   x [M, K * BITS / 32], words [N, K * BITS / 32] u32: codes of 4 or 8 bits, layout "dense" | y [M, N] f32
//   x_scale [M, K / block], w_scale [N, K / block] bytes: E8M0, or E4M3 that are not negative | block 16 (nvfp4) or 32, which divides K
//   parts [gridDim.y, M, N] f32, or null; depth: columns of K that a block sums, a multiple of 1024 / BITS
//   All row-major; M, N, K below 2^31. Grid (ceil(M / ROWS) * ceil(N / 128), ceil(K / depth)) x 256 threads, 3 * (ROWS + 128) * (128 +
//   1024 / BITS / block) bytes of dynamic shared memory; ROWS is 16 or 64. With one slice of K y is written; with more each writes its part,
//   and sum.cu adds them.
//   X and W are exact in bf16, down to 2^-126: what is smaller is off by at most 2^-134. Sums are f32: |error| <= (K + 4) * 2^-23 *
//   sum|X W| * |tensor_scale|. NaN and infinity spread, in codes as in scales. Rows do not touch each other.
//
// Codes become bf16 and are multiplied by their scales in registers, sixteen or thirty-two of a lane (common/tile.cuh), then bf16 tensor
// cores sum them: as scales are inside the products, a sum runs on from block to block. sm_100a and sm_120a have tensor cores for floats in
// blocks: block_scaled_pair_sm100a.cu, block_scaled_pair_sm120a.cu. Limit: bandwidth for few rows, the bf16 rate and the decoding for many.
// Not timed on a GPU so far.
//
//   ROWS 16: 8 warps side by side, each 16 x 16 of y        ROWS 64: 2 x 4 warps, each 32 x 32 of y
#include "common/blocks.cuh"
#include "common/mma.cuh"

// A scale twice, as bf16.
template <class Format> __device__ inline unsigned scale_pair(unsigned code) {
    if constexpr (Format::POWER)
        return (code == 0 ? 0x0040 : code == 255 ? 0x7fff : code << 7) * 0x10001;
    else
        return elements::E4m3fn::pair(code, code, 0, BF16{});
}

template <class Format, unsigned ROWS> struct Decode {
    static constexpr bool SWIZZLED = false;
    using X = BlocksTile<Format, ROWS, SWIZZLED>;
    using W = BlocksTile<Format, COLUMNS, SWIZZLED>;
    using Place = Warp<ROWS>;
    // A lane has 16 bytes of a row's chunk: codes, in eights, and of the words of an eight the last.
    static constexpr unsigned CHUNK = 64, EACH = 16 * 8 / Format::BITS, EIGHTS = EACH / 8, LAST = Format::BITS / 4 - 1;
    static constexpr unsigned SCALES = EACH > Format::BLOCK ? EACH / Format::BLOCK : 1;

    struct Row {
        Words<4> codes;
        unsigned scales[SCALES];
        template <class Of> __device__ void read(const unsigned char* tile, unsigned row, unsigned chunk, unsigned t, Of) {
            codes = load<Words<4>>(tile + Of::Codes::place(row, chunk * CHUNK + t * 16));
#pragma unroll
            for (unsigned i = 0; i < SCALES; i++) {
                const unsigned at = (chunk * 4 + t) * EACH / Format::BLOCK + i;
                scales[i] = scale_pair<Format>(load<unsigned char>(tile + Of::scale(row, at)));
            }
        }
        __device__ unsigned pair(unsigned eight, unsigned i) const {
            const unsigned first = eight * (LAST + 1);
            return multiply_pair(Format::Element::pair(codes.word[first], codes.word[first + LAST], i, BF16{}),
                                 scales[eight * 8 * SCALES / EACH], BF16{});
        }
    };

    __device__ static void add(const unsigned char* x, const unsigned char* w, const Place& at, float (&total)[Place::DOWN][Place::ACROSS][4]) {
#pragma unroll
        for (unsigned chunk = 0; chunk < BYTES / CHUNK; chunk++) {
            Row rows[Place::DOWN][2], columns[Place::ACROSS];
#pragma unroll
            for (unsigned i = 0; i < Place::DOWN * 2; i++) rows[i / 2][i % 2].read(x, at.m + i * 8 + at.g, chunk, at.t, X{});
#pragma unroll
            for (unsigned i = 0; i < Place::ACROSS; i++) columns[i].read(w, at.n + i * 8 + at.g, chunk, at.t, W{});
#pragma unroll
            for (unsigned step = 0; step < EIGHTS * 2; step++) {  // an eight is four pairs, of which a product takes two
                const unsigned eight = step / 2, pair = step % 2 * 2;
                unsigned a[Place::DOWN][4];
#pragma unroll
                for (unsigned i = 0; i < Place::DOWN * 4; i++) a[i / 4][i % 4] = rows[i / 4][i % 2].pair(eight, pair + i % 4 / 2);
#pragma unroll
                for (unsigned across = 0; across < Place::ACROSS; across++) {
                    const unsigned b[2] = {columns[across].pair(eight, pair), columns[across].pair(eight, pair + 1)};
                    for (unsigned down = 0; down < Place::DOWN; down++) mma(total[down][across], a[down], b, BF16{});
                }
            }
        }
    }
};

#define INSTANCES(NAME, FORMAT)                                     \
    BLOCKS_ENTRY(block_scaled_pair_##NAME##_m16, FORMAT, 16, 3, Decode) \
    BLOCKS_ENTRY(block_scaled_pair_##NAME##_m64, FORMAT, 64, 3, Decode)

INSTANCES(nvfp4, Nvfp4)
INSTANCES(mxfp4, Mxfp4)
INSTANCES(mxfp8_e4m3fn, Mx8<elements::E4m3fn>)
INSTANCES(mxfp8_e5m2, Mx8<elements::E5m2>)
INSTANCES(mxint8, Mx8<elements::Int8>)
