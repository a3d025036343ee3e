// block_scaled_pair_sm120a: block_scaled_pair.cu on tensor cores that take floats in blocks as they are (GeForce and RTX PRO Blackwell).
//   Arguments and grid as there, 2 * (ROWS + 128) * (128 + 1024 / BITS / block) bytes of dynamic shared memory; ROWS is 16 or 128.
//   How these tensor cores round sums NVIDIA does not say, and nobody has measured it here: as f32 does, |error| is that of
//   block_scaled_pair.cu. The sign of an E4M3 scale is not looked at.
//
// Codes go from global memory to registers as they are: by cp.async into the 128-byte swizzle, by ldmatrix into fragments. A lane reads all
// scales of a stage of its rows at once; of the four in a register the selector of mma (common/scaled_mma.cuh) takes those of its product.
// The shared memory of sm_120, 100 KiB a multiprocessor, holds two stages of one tile of 128 x 128, or of two of 16 x 128; one stage is
// multiplied while the other is copied. sm_121 takes no code of sm_120a and runs block_scaled_pair.cu. Limit: bandwidth for few rows, the rate of tensor cores for many. Run on the emulator alone so far, on no GPU.
//
//   ROWS 16: 8 warps side by side, each 16 x 16 of y        ROWS 128: 2 x 4 warps, each 64 x 32 of y
#include "common/blocks.cuh"
#include "common/scaled_mma.cuh"

template <class Format, unsigned ROWS> struct Native {
    static constexpr bool SWIZZLED = true;
    using X = BlocksTile<Format, ROWS, SWIZZLED>;
    using W = BlocksTile<Format, COLUMNS, SWIZZLED>;
    using Place = Warp<ROWS>;
    // Bytes of a row in a product, its scales, and of which scales there are words in a stage.
    static constexpr unsigned STEP = 32, TAKEN = STEP * 8 / Format::BITS / Format::BLOCK, WORDS = X::Scales::BYTES / 4;

    struct Scales {
        Words<WORDS> rows[Place::DOWN], columns[Place::ACROSS];
    };

    template <unsigned NUMBER>
    __device__ static void step(const unsigned char* x, const unsigned char* w, const Place& at, const Scales& scales,
                                float (&total)[Place::DOWN][Place::ACROSS][4]) {
        constexpr unsigned WORD = NUMBER * TAKEN / 4, BYTE = NUMBER * TAKEN % 4;
        unsigned a[Place::DOWN][4];
#pragma unroll
        for (unsigned down = 0; down < Place::DOWN; down++)
            load_matrices(x + X::Codes::place(at.m + down * 16 + at.lane % 16, NUMBER * STEP + at.lane / 16 * 16), a[down]);
#pragma unroll
        for (unsigned across = 0; across < Place::ACROSS; across += 2) {
            unsigned both[4];
            const unsigned column = at.n + across * 8 + at.lane / 16 * 8 + at.lane % 8;
            load_matrices(w + W::Codes::place(column, NUMBER * STEP + at.lane / 8 % 2 * 16), both);
#pragma unroll
            for (unsigned i = 0; i < 2; i++) {
                const unsigned b[2] = {both[2 * i], both[2 * i + 1]};
#pragma unroll
                for (unsigned down = 0; down < Place::DOWN; down++)
                    mma<BYTE>(total[down][across + i], a[down], b, scales.rows[down].word[WORD], scales.columns[across + i].word[WORD], Format{});
            }
        }
    }

    __device__ static void add(const unsigned char* x, const unsigned char* w, const Place& at, float (&total)[Place::DOWN][Place::ACROSS][4]) {
        Scales scales;
        // Lanes 4 g and 4 g + 1 give those of rows g and g + 8; what the others read nobody looks at.
#pragma unroll
        for (unsigned i = 0; i < Place::DOWN; i++) scales.rows[i] = load<Words<WORDS>>(x + X::scale(at.m + i * 16 + at.t % 2 * 8 + at.g, 0));
#pragma unroll
        for (unsigned i = 0; i < Place::ACROSS; i++) scales.columns[i] = load<Words<WORDS>>(w + W::scale(at.n + i * 8 + at.g, 0));
        static_assert(BYTES / STEP == 4, "a stage is four products deep");
        step<0>(x, w, at, scales, total);
        step<1>(x, w, at, scales, total);
        step<2>(x, w, at, scales, total);
        step<3>(x, w, at, scales, total);
    }
};

#define INSTANCES(NAME, FORMAT)                                            \
    BLOCKS_ENTRY(block_scaled_pair_sm120a_##NAME##_m16, FORMAT, 16, 2, Native) \
    BLOCKS_ENTRY(block_scaled_pair_sm120a_##NAME##_m128, FORMAT, 128, 2, Native)

INSTANCES(nvfp4, Nvfp4)
INSTANCES(mxfp4, Mxfp4)
INSTANCES(mxfp8_e4m3fn, Mx8<elements::E4m3fn>)
INSTANCES(mxfp8_e5m2, Mx8<elements::E5m2>)
