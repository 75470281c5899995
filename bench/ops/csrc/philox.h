// Philox2x32 of seven rounds (Salmon et al. 2011) in the lanes of a vector: see masks.py, which says what is drawn.

#pragma once

#include "lanes.h"

namespace {

// Products with one factor: high and low 32 bits.
INLINE void multiply(Words a, uint32_t by, Words &high, Words &low) {
#if HAS_512
    const __m512i x = as<__m512i>(a), y = _mm512_set1_epi32(int(by));
    const __m512i even = _mm512_mul_epu32(x, y), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), y);
    high = as<Words>(_mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd));
    low = as<Words>(_mm512_mullo_epi32(x, y));
#elif defined(__AVX2__)
    const __m256i x = as<__m256i>(a), y = _mm256_set1_epi32(int(by));
    const __m256i even = _mm256_mul_epu32(x, y), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), y);
    high = as<Words>(_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA));
    low = as<Words>(_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA));
#else
    for (int lane = 0; lane < V; lane++) {
        const uint64_t product = uint64_t(a[lane]) * by;
        high[lane] = uint32_t(product >> 32), low[lane] = uint32_t(product);
    }
#endif
}

// The numbers of four time steps: 16 bits each, the first and third in the lower halves.
struct Numbers {
    Words pairs[2];
};

INLINE Numbers philox(Words first, uint32_t second, uint32_t key) {
    Words other = Words{} + second, high, low;
#pragma GCC unroll 7
    for (int round = 0; round < 7; round++) {
        multiply(first, 0xD256D193u, high, low);
        first = high ^ key ^ other;
        other = low;
        key += 0x9E3779B9u;
    }
    return Numbers{{first, other}};
}

// `first`, and the ones behind it.
INLINE Words places(int64_t first) {
    Words lanes;
    for (uint32_t lane = 0; lane < V; lane++) lanes[lane] = lane;
    return lanes + uint32_t(first);
}

INLINE Words number(const Numbers &of, int64_t t) {
    const Words pair = of.pairs[t / 2 % 2];
    return t % 2 ? pair >> 16 : pair & 0xFFFFu;
}

INLINE Mask no_less(Words a, uint32_t b) {
#if HAS_512
    return Mask{_mm512_cmp_epu32_mask(as<__m512i>(a), _mm512_set1_epi32(int(b)), _MM_CMPINT_NLT)};
#else
    // Numbers of 16 bits have no sign.
    return (Mask)a >= (Mask{} + int32_t(b));
#endif
}

}  // namespace
