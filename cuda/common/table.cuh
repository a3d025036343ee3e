// Codes that stand for the values of a table, looked up in shared memory: in place of `Whole` (common/pairs.cuh) in a product.
//   One table for all columns: up to 4 bits two codes are looked up at once, and entries lie there eight times over, so that few lanes
//   meet in a bank; a value costs two instructions then, four else.
//   A table for each column of the tile: as it is given.
// Values are of the dtype of x: what is multiplied is exact.
#pragma once
#include "common/pairs.cuh"

template <bool OWN> struct Entry {
    using Type = unsigned;
};
template <> struct Entry<true> {
    using Type = unsigned short;
};

// OWN: a table for each of the COLUMNS of a tile.
template <unsigned BITS, bool OWN, unsigned COLUMNS> struct Table {
    static constexpr bool PAIRED = !OWN && BITS <= 4;
    static constexpr unsigned COPIES = OWN ? 1 : 8, INDEX = PAIRED ? 2 * BITS : BITS, ENTRIES = 1u << INDEX, MASK = ENTRIES - 1;
    using Type = typename Entry<OWN>::Type;
    static constexpr unsigned BYTES = (OWN ? COLUMNS : 1) * ENTRIES * COPIES * sizeof(Type);

    // Fills it, for the columns from n0 on; all see it behind a barrier.
    template <unsigned THREADS, class T> __device__ static Table filled(const T* table, unsigned n0, unsigned N) {
        auto* entries = reinterpret_cast<Type*>(dynamic_shared());
        for (unsigned at = threadIdx.x; at < BYTES / sizeof(Type); at += THREADS) {
            const unsigned index = at / COPIES % ENTRIES, n = n0 + at / COPIES / ENTRIES;
            if constexpr (PAIRED)
                entries[at] = table[index & ((1 << BITS) - 1)].bits | unsigned(table[index >> BITS].bits) << 16;
            else
                entries[at] = table[OWN ? size_t(n < N ? n : N - 1) * ENTRIES + index : index].bits;
        }
        return {};
    }

    // Where the entries of a column of the tile begin, or this thread's copy of all.
    __device__ unsigned of_column(unsigned column) const { return OWN ? column * ENTRIES : threadIdx.x % COPIES; }

    template <class T> __device__ void pairs(Eight codes, unsigned first, unsigned (&to)[4], T) const {
        const auto* entries = reinterpret_cast<const Type*>(dynamic_shared()) + first;
        if constexpr (PAIRED) {
            Words<4> values;
#pragma unroll
            for (unsigned i = 0; i < 4; i++) values.word[i] = entries[(codes.low >> INDEX * i & MASK) * COPIES];
            value_pairs(values, to);
        } else {
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                const unsigned both = code_pair<BITS>(codes.low, codes.high, i);
                to[i] = entries[(both & 0xffff) * COPIES] | unsigned(entries[(both >> 16) * COPIES]) << 16;
            }
        }
    }
};
