// Codes of BITS bits in layout "dense": a row of the matrix is one endless little-endian stream of bits in 32-bit words, padded with
// zero bits to whole words, so code k starts at bit k * BITS and may lie across two words where BITS does not divide 32.
// Plain C++: the device helper is its own CPU twin.
#pragma once

template <unsigned BITS> __device__ inline unsigned code_at(const unsigned* row, unsigned k) {
    static_assert(BITS >= 1 && BITS <= 8, "a code has 1 to 8 bits");
    const size_t first = size_t(k) * BITS;
    const unsigned* word = row + first / 32;
    const unsigned shift = first % 32;
    unsigned code = word[0] >> shift;
    if (32 % BITS != 0 && shift + BITS > 32) code |= word[1] << (32 - shift);  // only then is there a next word to be read
    return code & ((1u << BITS) - 1);
}
