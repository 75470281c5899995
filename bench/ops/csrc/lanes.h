// What the kernels of convolutions share: vectors of V channels, bfloat16 in and out of them, the two ways of
// multiplying, scratch memory, and the share of a thread.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAS_PAIRS 1
#else
#define HAS_PAIRS 0
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

#ifdef __AVX512F__
constexpr int V = 16;           // channels of a block: floats of one register
constexpr int kRegisters = 32;
#else
constexpr int V = 8;
constexpr int kRegisters = 16;
#endif

typedef float Floats __attribute__((vector_size(V * sizeof(float))));
typedef uint32_t Words __attribute__((vector_size(V * sizeof(uint32_t))));

// bfloat16 as its bits.
typedef uint16_t Bf16;
typedef Bf16 Halves __attribute__((vector_size(V * sizeof(Bf16))));

template <typename Out, typename In>
INLINE Out as(In value) {
    static_assert(sizeof(Out) == sizeof(In), "reinterpreted, not converted");
    Out out;
    std::memcpy(&out, &value, sizeof(out));
    return out;
}

INLINE Words widen(Halves bits) {
#ifdef __AVX512F__
    return as<Words>(_mm512_cvtepu16_epi32(as<__m256i>(bits)));  // GCC 12 makes four instructions of a conversion
#else
    return __builtin_convertvector(bits, Words);
#endif
}

// Round to nearest even; NaN stays NaN.
INLINE Halves rounded(Floats value) {
#if HAS_PAIRS
    return as<Halves>(_mm512_cvtneps_pbh(as<__m512>(value)));
#else
    const Words bits = as<Words>(value);
    const Words even = bits + 0x7fffu + ((bits >> 16) & 1u);
    const Words number = (Words)(value == value);
    return __builtin_convertvector(((number & even) | (~number & (bits | 0x400000u))) >> 16, Halves);
#endif
}

// `lanes` < V at the last block when V does not divide the channels.
template <typename Vector, typename T>
INLINE Vector load_lanes(const T* from, int lanes) {
    Vector out = {};
    if (lanes == V) std::memcpy(&out, from, sizeof(out));
    else std::memcpy(&out, from, lanes * sizeof(T));
    return out;
}

template <typename Vector, typename T>
INLINE void store_lanes(T* to, Vector value, int lanes) {
    if (lanes == V) std::memcpy(to, &value, sizeof(value));
    else std::memcpy(to, &value, lanes * sizeof(T));
}

INLINE Floats load(const float* from, int lanes = V) { return load_lanes<Floats>(from, lanes); }
INLINE Floats load(const Bf16* from, int lanes = V) {
    return as<Floats>(widen(load_lanes<Halves>(from, lanes)) << 16);
}
INLINE void store(float* to, Floats value, int lanes = V) { store_lanes(to, value, lanes); }
INLINE void store(Bf16* to, Floats value, int lanes = V) { store_lanes(to, rounded(value), lanes); }

// What lies in a lane and how it is multiplied. A cell is a vector of V lanes, a scalar is one lane of it.

// One number a lane, multiplied by FMA.
struct SingleMath {
    typedef Floats Cell;
    typedef float Scalar;
    static constexpr int taps = 1;

    static INLINE Floats add_product(Floats sum, Cell a, Cell b) { return sum + a * b; }
    static INLINE Cell broadcast(Scalar value) { return Cell{} + value; }
    static INLINE Cell cell(Floats first, Floats) { return first; }
};

#if HAS_PAIRS
// Two bfloat16 a lane, multiplied and added up by vdpbf16ps; the sum is float32.
struct PairMath {
    typedef Words Cell;
    typedef uint32_t Scalar;
    static constexpr int taps = 2;

    static INLINE Floats add_product(Floats sum, Cell a, Cell b) {
        return as<Floats>(_mm512_dpbf16_ps(as<__m512>(sum), as<__m512bh>(a), as<__m512bh>(b)));
    }
    static INLINE Cell broadcast(Scalar value) { return as<Cell>(_mm512_set1_epi32(static_cast<int>(value))); }
    static INLINE Cell cell(Floats first, Floats second) {
        alignas(64) static constexpr Bf16 kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        const __m512bh both = _mm512_cvtne2ps_pbh(as<__m512>(second), as<__m512>(first));
        return as<Cell>(_mm512_permutexvar_epi16(_mm512_load_si512(kOrder), as<__m512i>(both)));
    }
};
#endif

// Zeroed memory for `count` cells, aligned to a cache line.
template <typename Cell>
struct Cells {
    Cell* at;
    explicit Cells(int64_t count) {
        const size_t bytes = (count * sizeof(Cell) + 63) / 64 * 64;
        at = static_cast<Cell*>(std::aligned_alloc(64, bytes));
        if (at) std::memset(at, 0, bytes);
    }
    ~Cells() { std::free(at); }
    Cells(const Cells&) = delete;
    Cells& operator=(const Cells&) = delete;
};

constexpr int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// The share of `items` that thread `me` of `team` does: contiguous, so that blocks of one image stay in one cache.
struct Share {
    int64_t begin, end;
    Share(int64_t items, int me, int team) : begin(items * me / team), end(items * (me + 1) / team) {}
};

}  // namespace
