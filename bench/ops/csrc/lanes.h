// What the kernels share: vectors of V channels and masks of them, bfloat16 in and out of them, the two ways of
// multiplying, scratch memory, and the share of a thread.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAS_512 1
#else
#define HAS_512 0
#endif

#if HAS_512 && defined(__AVX512BF16__)
#define HAS_PAIRS 1
#else
#define HAS_PAIRS 0
#endif

#define INLINE inline __attribute__((always_inline))

// Numbers of 16 bits as their bits: bfloat16, and IEEE half precision, a type of its own to be told from it.
typedef uint16_t Bf16;
struct Fp16 {
    uint16_t bits;
};

namespace {

#if HAS_512
constexpr int V = 16;           // channels of a block: floats of one register
constexpr int kRegisters = 32;
#else
constexpr int V = 8;
constexpr int kRegisters = 16;
#endif

typedef float Floats __attribute__((vector_size(V * sizeof(float))));
typedef uint32_t Words __attribute__((vector_size(V * sizeof(uint32_t))));

typedef uint16_t Halves __attribute__((vector_size(V * sizeof(uint16_t))));

template <typename Out, typename In>
INLINE Out as(In value) {
    static_assert(sizeof(Out) == sizeof(In), "reinterpreted, not converted");
    Out out;
    std::memcpy(&out, &value, sizeof(out));
    return out;
}

INLINE Words widen(Halves bits) {
#if HAS_512
    return as<Words>(_mm512_cvtepu16_epi32(as<__m256i>(bits)));  // GCC 12 makes four instructions of a conversion
#else
    return __builtin_convertvector(bits, Words);
#endif
}

INLINE Floats widened(Halves bits, Bf16) { return as<Floats>(widen(bits) << 16); }

// Round to nearest even; NaN stays NaN.
INLINE Halves rounded(Floats value, Bf16) {
#if HAS_PAIRS
    return as<Halves>(_mm512_cvtneps_pbh(as<__m512>(value)));
#else
    const Words bits = as<Words>(value);
    const Words even = bits + 0x7fffu + ((bits >> 16) & 1u);
    const Words number = (Words)(value == value);
    return __builtin_convertvector(((number & even) | (~number & (bits | 0x400000u))) >> 16, Halves);
#endif
}

#if HAS_512
INLINE Floats widened(Halves bits, Fp16) { return as<Floats>(_mm512_cvtph_ps(as<__m256i>(bits))); }
INLINE Halves rounded(Floats value, Fp16) {
    return as<Halves>(_mm512_cvtps_ph(as<__m512>(value), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#elif defined(__F16C__)
INLINE Floats widened(Halves bits, Fp16) { return as<Floats>(_mm256_cvtph_ps(as<__m128i>(bits))); }
INLINE Halves rounded(Floats value, Fp16) {
    return as<Halves>(_mm256_cvtps_ph(as<__m256>(value), _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__FLT16_MAX__)
typedef _Float16 Sixteens __attribute__((vector_size(V * sizeof(_Float16))));
INLINE Floats widened(Halves bits, Fp16) { return __builtin_convertvector(as<Sixteens>(bits), Floats); }
INLINE Halves rounded(Floats value, Fp16) { return as<Halves>(__builtin_convertvector(value, Sixteens)); }
#endif

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
INLINE void store(float* to, Floats value, int lanes = V) { store_lanes(to, value, lanes); }
template <typename T>
INLINE Floats load(const T* from, int lanes = V) {
    return widened(load_lanes<Halves>(from, lanes), T());
}
template <typename T>
INLINE void store(T* to, Floats value, int lanes = V) {
    store_lanes(to, rounded(value, T()), lanes);
}

// What would be read back after `store`.
INLINE Floats stored(Floats value, float) { return value; }
template <typename T>
INLINE Floats stored(Floats value, T) {
    return widened(rounded(value, T()), T());
}

// 1 / value for values from 1 on, within 2^-23 of it; beyond 1e30, 1e-30.
INLINE Floats reciprocal(Floats value) {
#if HAS_512
    // In this order a NaN stays one.
    const __m512 finite = _mm512_min_ps(_mm512_set1_ps(1e30f), as<__m512>(value));
    const Floats near = as<Floats>(_mm512_rcp14_ps(finite));
    return near + near * (1.0f - as<Floats>(finite) * near);
#else
    return 1.0f / value;
#endif
}

// The product, which the compiler then fuses with no sum.
INLINE Floats rounded_alone(Floats product) {
#if defined(__AVX__)
    __asm__("" : "+v"(product));
#elif defined(__aarch64__)
    typedef float Quad __attribute__((vector_size(16)));
    Quad parts[V / 4];
    std::memcpy(parts, &product, sizeof(product));
    for (Quad& part : parts) __asm__("" : "+w"(part));
    std::memcpy(&product, parts, sizeof(product));
#endif
    return product;
}

// A truth of each lane. GCC 12 keeps comparisons of vectors in vectors, which costs a conversion each way.
#if HAS_512
struct Mask {
    __mmask16 bits;
};
INLINE Mask mask_of(int bits) { return Mask{static_cast<__mmask16>(bits)}; }
INLINE Mask operator&(Mask a, Mask b) { return mask_of(a.bits & b.bits); }
INLINE Mask operator|(Mask a, Mask b) { return mask_of(a.bits | b.bits); }
INLINE Mask operator~(Mask a) { return mask_of(~a.bits); }
INLINE Mask at_least(Floats a, Floats b) {
    return Mask{_mm512_cmp_ps_mask(as<__m512>(a), as<__m512>(b), _CMP_GE_OQ)};
}
INLINE Mask above(Floats a, Floats b) {
    return Mask{_mm512_cmp_ps_mask(as<__m512>(a), as<__m512>(b), _CMP_GT_OQ)};
}
INLINE Mask is_nan(Floats a) {
    return Mask{_mm512_cmp_ps_mask(as<__m512>(a), as<__m512>(a), _CMP_UNORD_Q)};
}
INLINE Floats select(Mask which, Floats yes, Floats no) {
    return as<Floats>(_mm512_mask_blend_ps(which.bits, as<__m512>(no), as<__m512>(yes)));
}
INLINE Mask first_lanes(int lanes) { return mask_of((1 << lanes) - 1); }
// `bits` where true, else 0.
INLINE Halves lanes_of(Mask which, uint16_t bits) { return as<Halves>(_mm256_maskz_set1_epi16(which.bits, bits)); }

struct Count {
    int64_t sum = 0;
    INLINE void add(Mask which) { sum += __builtin_popcount(which.bits); }
    int64_t total() const { return sum; }
};
#else
typedef int32_t Mask __attribute__((vector_size(V * sizeof(int32_t))));  // -1 where true
INLINE Mask at_least(Floats a, Floats b) { return a >= b; }
INLINE Mask above(Floats a, Floats b) { return a > b; }
INLINE Mask is_nan(Floats a) { return a != a; }
INLINE Floats select(Mask which, Floats yes, Floats no) { return which ? yes : no; }
INLINE Mask first_lanes(int lanes) {
    Mask out = {};
    for (int lane = 0; lane < lanes; ++lane) out[lane] = -1;
    return out;
}
INLINE Halves lanes_of(Mask which, uint16_t bits) { return __builtin_convertvector(as<Words>(which) & bits, Halves); }

struct Count {
    Mask sum = {};
    INLINE void add(Mask which) { sum += which; }
    int64_t total() const {
        int64_t out = 0;
        for (int lane = 0; lane < V; ++lane) out -= sum[lane];
        return out;
    }
};
#endif

// 1 where true, else 0.
INLINE Floats ones(Mask which, float) { return select(which, Floats{} + 1.0f, Floats{}); }
INLINE Halves ones(Mask which, Bf16) { return lanes_of(which, 0x3f80); }
INLINE Halves ones(Mask which, Fp16) { return lanes_of(which, 0x3c00); }

// What lies in a lane and how it is multiplied. A cell is a vector of V lanes, a scalar is one lane of it.

// One number a lane, multiplied by FMA.
struct SingleMath {
    typedef Floats Cell;
    typedef float Scalar;
    static constexpr int taps = 1;

    static INLINE Floats add_product(Floats sum, Cell a, Cell b) { return sum + a * b; }
    // `value + 0` would be an addition, as it makes a 0 of -0; this is none, and loads straight into all lanes.
    static INLINE Cell broadcast(Scalar value) { return value - Cell{}; }
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

// Memory for `count` cells, zeroed unless told otherwise, aligned to a cache line.
template <typename Cell>
struct Cells {
    Cell* at;
    explicit Cells(int64_t count, bool zeroed = true) {
        const size_t bytes = (count * sizeof(Cell) + 63) / 64 * 64;
        at = static_cast<Cell*>(std::aligned_alloc(64, bytes));
        if (at && zeroed) std::memset(at, 0, bytes);
    }
    ~Cells() { std::free(at); }
    Cells(const Cells&) = delete;
    Cells& operator=(const Cells&) = delete;
};

// All lanes of a vector, as a constant.
typedef std::integral_constant<int, V> All;

constexpr int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

// Which thread of how many this is.
struct Team {
    int me = 0, size = 1;
    Team() {
#ifdef _OPENMP
        me = omp_get_thread_num(), size = omp_get_num_threads();
#endif
    }
};

// The share of `items` that a thread does: contiguous, so that blocks of one image stay in one cache.
struct Share {
    int64_t begin, end;
    Share(int64_t items, const Team& team)
        : begin(items * team.me / team.size), end(items * (team.me + 1) / team.size) {}
};

}  // namespace
