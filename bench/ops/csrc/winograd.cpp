// 3 x 3 convolution (stride 1, padding 1) over NHWC by Winograd's F(2 x 2, 3 x 3): forward, data gradient, weight
// gradient. Lavin and Gray 2016 (arXiv 1509.09308), section 4.1.
//
// A tile is 2 x 2 outputs and the 4 x 4 inputs they see. In the basis of 4 x 4 "points" a convolution is a product at
// each point, 16 multiplications where the definition has 36:
//   Y = A' [(G g G') . (B' d B)] A   with
//   B' = 1  0 -1  0    G = 1   0   0    A' = 1 1  1 0
//        0  1  1  0        1/2 1/2 1/2       0 1 -1 1
//        0 -1  1  0        1/2 -1/2 1/2
//        0 -1  0  1        0   0   1
// Over channels these are 16 matrix products. What goes into them is rounded to the tensors' dtype (B' d B of spikes
// or small counts of them is exact in bfloat16, G g G' of the float32 taps is rounded once); sums are float32.

#include "lanes.h"

namespace {

constexpr int kPoints = 16;
constexpr int kWide = kRegisters == 32 ? 4 : 2;  // vectors of output channels in a block
constexpr int64_t kTiles = 48;                   // tiles of a work item: its points and sums fit the second cache
constexpr int64_t kGradientTiles = 128;
constexpr int64_t kRun = 8;                      // tiles in a row whose pixels and points fit the first cache
// The points of a tile lie a power of two apart without it, and would push each other out of the first cache.
constexpr int64_t kGap = 1;

// Rows of a product whose sums, with a row of the other factor, fit the registers; divides kTiles.
constexpr int rows_for(int wide) {
    return kRegisters == 32 ? (wide == 4 ? 6 : wide == 3 ? 8 : wide == 2 ? 12 : 24) : (wide == 2 ? 6 : 12);
}

struct Shape {
    int64_t images, height, width, inputs, outputs;

    int64_t tall() const { return (height + 1) / 2; }
    int64_t wide() const { return (width + 1) / 2; }
    int64_t tiles() const { return images * tall() * wide(); }
};

typedef ELEMENT T;
#if HAS_PAIRS
typedef std::conditional_t<std::is_same_v<T, Bf16>, PairMath, SingleMath> Math;
#else
typedef SingleMath Math;
#endif
typedef Math::Cell Cell;
typedef Math::Scalar Scalar;

// C[r][n] (+)= sum_k A[r][k] B[k][n] for ROWS rows and WIDE vectors n.
template <int ROWS, int WIDE, bool ADD>
INLINE void product(const Scalar* a, int64_t a_row, int64_t a_step, const Cell* b, int64_t b_step, int64_t steps,
                    Floats* c, int64_t c_row) {
    Floats sum[ROWS][WIDE];
#pragma GCC unroll 32
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int n = 0; n < WIDE; ++n) sum[r][n] = ADD ? c[r * c_row + n] : Floats{};
    for (int64_t k = 0; k < steps; ++k) {
        Cell row[WIDE];
#pragma GCC unroll 4
        for (int n = 0; n < WIDE; ++n) row[n] = b[k * b_step + n];
#pragma GCC unroll 32
        for (int r = 0; r < ROWS; ++r) {
            const Cell value = Math::broadcast(a[r * a_row + k * a_step]);
#pragma GCC unroll 4
            for (int n = 0; n < WIDE; ++n) sum[r][n] = Math::add_product(sum[r][n], value, row[n]);
        }
    }
#pragma GCC unroll 32
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
        for (int n = 0; n < WIDE; ++n) c[r * c_row + n] = sum[r][n];
}

// Where tile `t` lies.
struct Place {
    int64_t image, top, left;  // of its outputs
    Place(int64_t t, const Shape& shape) {
        const int64_t wide = shape.wide(), tall = shape.tall();
        left = t % wide * 2;
        top = t / wide % tall * 2;
        image = t / wide / tall;
    }
};

// Rows of pixels from `top` on, in one image; those outside it are zeros.
template <int ROWS>
struct Rows {
    const T* at[ROWS];
    int64_t step[ROWS];  // to the next pixel

    INLINE Rows(const T* x, const T* zeros, const Shape& shape, int64_t channels, int64_t image, int64_t top) {
        for (int i = 0; i < ROWS; ++i) {
            const int64_t h = top + i;
            const bool inside = h >= 0 && h < shape.height;
            at[i] = inside ? x + (image * shape.height + h) * shape.width * channels : zeros;
            step[i] = inside ? channels : 0;
        }
    }
    INLINE Floats pixel(int i, int64_t w, int64_t channel) const { return load(at[i] + w * step[i] + channel); }
};

// Calls f(place of the first, number from `first` on, how many) for runs of tiles that lie next to each other.
template <class F>
INLINE void each_run(const Shape& shape, int64_t first, int64_t count, const F& f) {
    for (int64_t t = 0; t < count;) {
        const Place place(first + t, shape);
        const int64_t row = shape.wide() - place.left / 2, left = count - t < row ? count - t : row;
        const int64_t tiles = left < kRun ? left : kRun;
        f(place, t, tiles);
        t += tiles;
    }
}

// Calls f(tile, channel, points) for B' d B of V channels each; tiles are counted from `first`.
template <class F>
INLINE void each_image(const T* x, const T* zeros, const Shape& shape, int64_t first, int64_t count, const F& f) {
    each_run(shape, first, count, [&](const Place& place, int64_t t, int64_t tiles) __attribute__((always_inline)) {
        const Rows<4> rows(x, zeros, shape, shape.inputs, place.image, place.top - 1);
        for (int64_t c = 0; c < shape.inputs; c += V) {
            Floats d[4][4];  // columns, each times B' already; two of them serve the next tile as well
            const auto column = [&](int64_t w, Floats(&to)[4]) __attribute__((always_inline)) {
                if (w < 0 || w >= shape.width) {
                    to[0] = to[1] = to[2] = to[3] = Floats{};
                    return;
                }
                const Floats a = rows.pixel(0, w, c), b = rows.pixel(1, w, c), e = rows.pixel(2, w, c),
                             g = rows.pixel(3, w, c);
                to[0] = a - e, to[1] = b + e, to[2] = e - b, to[3] = g - b;
            };
            column(place.left - 1, d[0]);
            column(place.left, d[1]);
            for (int64_t n = 0; n < tiles; ++n) {
                column(place.left + 2 * n + 1, d[2]);
                column(place.left + 2 * n + 2, d[3]);
                Floats p[4][4];
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) {
                    p[i][0] = d[0][i] - d[2][i], p[i][1] = d[1][i] + d[2][i];
                    p[i][2] = d[2][i] - d[1][i], p[i][3] = d[3][i] - d[1][i];
                }
                f(t + n, c, p);
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) d[0][i] = d[2][i], d[1][i] = d[3][i];
            }
        }
    });
}

// Calls f(tile, channel, points) for A dY A' of V channels each; points[1][1] is the sum of dY.
template <class F>
INLINE void each_gradient(const T* dy, const T* zeros, const Shape& shape, int64_t first, int64_t count, const F& f) {
    each_run(shape, first, count, [&](const Place& place, int64_t t, int64_t tiles) __attribute__((always_inline)) {
        const Rows<2> rows(dy, zeros, shape, shape.outputs, place.image, place.top);
        for (int64_t c = 0; c < shape.outputs; c += V)
            for (int64_t n = 0; n < tiles; ++n) {
                Floats d[4][2];
#pragma GCC unroll 2
                for (int j = 0; j < 2; ++j) {
                    const int64_t w = place.left + 2 * n + j;
                    Floats a = {}, b = {};
                    if (w < shape.width) a = rows.pixel(0, w, c), b = rows.pixel(1, w, c);
                    d[0][j] = a, d[1][j] = a + b, d[2][j] = a - b, d[3][j] = b;
                }
                Floats p[4][4];
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) {
                    p[i][0] = d[i][0], p[i][1] = d[i][0] + d[i][1];
                    p[i][2] = d[i][0] - d[i][1], p[i][3] = d[i][1];
                }
                f(t + n, c, p);
            }
    });
}

// Lays points of tiles down as cells: two tiles share one where a cell holds two numbers.
struct Layer {
    Cell* to;
    int64_t point, channels;
    Floats* held;  // points of the first tile of a cell

    INLINE void operator()(int64_t t, int64_t c, const Floats (&p)[4][4]) const {
        Floats* mine = held + c / V * kPoints;
        if (Math::taps == 2 && t % 2 == 0) {
#pragma GCC unroll 16
            for (int i = 0; i < kPoints; ++i) mine[i] = p[i / 4][i % 4];
            return;
        }
        Cell* cell = to + (t / Math::taps * channels + c) / V;
#pragma GCC unroll 16
        for (int i = 0; i < kPoints; ++i) {
            const Floats now = p[i / 4][i % 4];
            cell[i * point] = Math::cell(Math::taps == 2 ? mine[i] : now, now);
        }
    }

    // A tile of zeros behind an odd last one.
    void finish(int64_t count) const {
        const Floats nothing[4][4] = {};
        if (Math::taps == 2 && count % 2)
            for (int64_t c = 0; c < channels; c += V) (*this)(count, c, nothing);
    }
};

// G g G' of V taps; `at` is [3][3][inputs][outputs].
INLINE void tap_points(const float* at, int64_t stride, bool mirror, Floats (&p)[4][4]) {
    Floats g[3][3], d[4][3];
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) g[i][j] = load(at + (mirror ? 8 - i * 3 - j : i * 3 + j) * stride);
    for (int j = 0; j < 3; ++j) {
        const Floats ends = (g[0][j] + g[2][j]) * 0.5f, middle = g[1][j] * 0.5f;
        d[0][j] = g[0][j], d[1][j] = ends + middle, d[2][j] = ends - middle, d[3][j] = g[2][j];
    }
    for (int i = 0; i < 4; ++i) {
        const Floats ends = (d[i][0] + d[i][2]) * 0.5f, middle = d[i][1] * 0.5f;
        p[i][0] = d[i][0], p[i][1] = ends + middle, p[i][2] = ends - middle, p[i][3] = d[i][2];
    }
}

// One block of WIDE vectors of output channels of a work item: products at all points, then A' M A.
template <int WIDE>
void block(const Scalar* points, int64_t steps, const Cell* taps, int64_t taps_point, Floats* sums,
           const Floats* bias, T* y, const Shape& shape, int64_t first, int64_t count, int64_t channel) {
    constexpr int ROWS = rows_for(WIDE);
    constexpr int64_t kSums = kTiles * WIDE + kGap;
    const int64_t points_point = kTiles * steps + kGap * V;
    for (int p = 0; p < kPoints; ++p)
        for (int64_t t = 0; t < count; t += ROWS)
            product<ROWS, WIDE, false>(points + p * points_point + t * steps, steps, 1, taps + p * taps_point, WIDE,
                                       steps, sums + p * kSums + t * WIDE, WIDE);
    for (int64_t t = 0; t < count; ++t) {
        const Place place(first + t, shape);
        const bool below = place.top + 1 < shape.height, right = place.left + 1 < shape.width;
        T* to = y + ((place.image * shape.height + place.top) * shape.width + place.left) * shape.outputs + channel;
        T* under = to + shape.width * shape.outputs;
        for (int n = 0; n < WIDE; ++n) {
            const Floats* m = sums + t * WIDE + n;
            Floats d[2][4];
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) {
                const Floats a = m[j * kSums], b = m[(4 + j) * kSums], c = m[(8 + j) * kSums], e = m[(12 + j) * kSums];
                d[0][j] = a + b + c, d[1][j] = b - c + e;
            }
            store(to + n * V, d[0][0] + d[0][1] + d[0][2] + bias[n]);
            if (right) store(to + shape.outputs + n * V, d[0][1] - d[0][2] + d[0][3] + bias[n]);
            if (below) store(under + n * V, d[1][0] + d[1][1] + d[1][2] + bias[n]);
            if (below && right) store(under + shape.outputs + n * V, d[1][1] - d[1][2] + d[1][3] + bias[n]);
        }
    }
}

// y = bias + x * taps, `taps` [3, 3, inputs, outputs]; 0 when memory ran out.
int forward(const T* x, const float* taps, const float* bias, T* y, Shape shape, bool mirror, int threads) {
    const int64_t steps = shape.inputs / Math::taps, vectors = shape.outputs / V;
    const int64_t per_point = steps * vectors, items = (shape.tiles() + kTiles - 1) / kTiles;
    Cells<Cell> weights(kPoints * per_point, false);
    Cells<Floats> offsets(vectors);
    Cells<T> zeros(shape.inputs);
    if (!weights.at || !offsets.at || !zeros.at) return 0;
    if (bias) std::memcpy(offsets.at, bias, shape.outputs * sizeof(float));
    int ok = 1;
#pragma omp parallel num_threads(threads)
    {
        const Team team;
        const Share rows(steps, team);
        for (int64_t k = rows.begin; k < rows.end; ++k)
            for (int64_t n = 0; n < vectors; ++n) {
                const float* at = taps + k * Math::taps * shape.outputs + n * V;
                Floats p[4][4], q[4][4];
                tap_points(at, shape.inputs * shape.outputs, mirror, p);
                if (Math::taps == 2) tap_points(at + shape.outputs, shape.inputs * shape.outputs, mirror, q);
                const int64_t start = n / kWide * kWide, wide = vectors - start < kWide ? vectors - start : kWide;
                Cell* to = weights.at + start * steps + k * wide + n - start;
                for (int i = 0; i < kPoints; ++i) to[i * per_point] = Math::cell(p[i / 4][i % 4], q[i / 4][i % 4]);
            }
        const int64_t points_point = kTiles * shape.inputs + kGap * V * Math::taps;
        Cells<T> points(kPoints * points_point, false);
        Cells<Floats> sums(kPoints * (kTiles * kWide + kGap), false);
        if (!points.at || !sums.at) {
#pragma omp atomic write
            ok = 0;
        }
#pragma omp barrier
        const Share share(items, team);
        for (int64_t item = share.begin; ok && item < share.end; ++item) {
            const int64_t first = item * kTiles;
            const int64_t count = shape.tiles() - first < kTiles ? shape.tiles() - first : kTiles;
            each_image(x, zeros.at, shape, first, count,
                       [&](int64_t t, int64_t c, const Floats(&p)[4][4]) __attribute__((always_inline)) {
                           T* to = points.at + t * shape.inputs + c;
#pragma GCC unroll 16
                           for (int i = 0; i < kPoints; ++i) store(to + i * points_point, p[i / 4][i % 4]);
                       });
            for (int64_t n = 0; n < vectors; n += kWide) {
                const Cell* block_taps = weights.at + n * steps;
                const Scalar* image = reinterpret_cast<const Scalar*>(points.at);
#define BLOCK(WIDE)                                                                                                 \
    block<WIDE>(image, steps, block_taps, per_point, sums.at, offsets.at + n, y, shape, first, count, n * V)
                switch (vectors - n < kWide ? vectors - n : kWide) {
                    case 1: BLOCK(1); break;
                    case 2: BLOCK(2); break;
#if HAS_512
                    case 3: BLOCK(3); break;
                    default: BLOCK(4);
#endif
                }
#undef BLOCK
            }
        }
    }
    return ok;
}

// dU[point][input][output] += sum over tiles of B' d B [tile][input] * A dY A' [tile][output], at one point.
template <int WIDE>
void outer(const Scalar* image, const Cell* gradient, const Shape& shape, int64_t steps, Floats* sums) {
    constexpr int ROWS = kRegisters == 32 ? 24 / WIDE : 12 / WIDE;
    const int64_t vectors = shape.outputs / V;
    const int64_t C = shape.inputs;
    int64_t r = 0;
    for (; r + ROWS <= C; r += ROWS)
        product<ROWS, WIDE, true>(image + r, 1, C, gradient, vectors, steps, sums + r * vectors, vectors);
    for (; r + 4 <= C; r += 4)
        product<4, WIDE, true>(image + r, 1, C, gradient, vectors, steps, sums + r * vectors, vectors);
    for (; r < C; ++r)
        product<1, WIDE, true>(image + r, 1, C, gradient, vectors, steps, sums + r * vectors, vectors);
}

// dtaps [3, 3, inputs, outputs] and dbias of dy; 0 when memory ran out.
int weight_gradient(const T* x, const T* dy, float* dtaps, float* dbias, Shape shape, int threads) {
    constexpr int64_t kSteps = kGradientTiles / Math::taps;
    const int64_t vectors = shape.outputs / V, items = (shape.tiles() + kGradientTiles - 1) / kGradientTiles;
    const int64_t per_point = shape.inputs * vectors, per_thread = kPoints * per_point + vectors;
    // A thread's sums stand apart and are added up in the order of threads: same threads, same bits.
    Cells<Floats> sums(threads * per_thread);
    Cells<T> zeros(shape.inputs > shape.outputs ? shape.inputs : shape.outputs);
    if (!sums.at || !zeros.at) return 0;
    int ok = 1;
#pragma omp parallel num_threads(threads)
    {
        const Team team;
        const int64_t image_point = kSteps * (shape.inputs / V) + kGap, gradient_point = kSteps * vectors + kGap;
        Cells<Cell> image(kPoints * image_point, false), gradient(kPoints * gradient_point, false);
        Cells<Floats> held(kPoints * (shape.inputs > shape.outputs ? shape.inputs : shape.outputs) / V);
        const Layer lay_image{image.at, image_point, shape.inputs, held.at};
        const Layer lay_gradient{gradient.at, gradient_point, shape.outputs, held.at};
        if (!image.at || !gradient.at || !held.at) {
#pragma omp atomic write
            ok = 0;
        }
#pragma omp barrier
        Floats* mine = sums.at + team.me * per_thread;
        Floats* total = mine + kPoints * per_point;
        const Share share(items, team);
        for (int64_t item = share.begin; ok && item < share.end; ++item) {
            const int64_t first = item * kGradientTiles;
            const int64_t count = shape.tiles() - first < kGradientTiles ? shape.tiles() - first : kGradientTiles;
            const int64_t steps = (count + Math::taps - 1) / Math::taps;
            each_image(x, zeros.at, shape, first, count, lay_image);
            lay_image.finish(count);
            each_gradient(dy, zeros.at, shape, first, count,
                          [&](int64_t t, int64_t c, const Floats(&p)[4][4]) __attribute__((always_inline)) {
                              total[c / V] += p[1][1];
                              lay_gradient(t, c, p);
                          });
            lay_gradient.finish(count);
            for (int p = 0; p < kPoints; ++p) {
                const Scalar* left = reinterpret_cast<const Scalar*>(image.at + p * image_point);
                for (int64_t n = 0; n < vectors; n += kWide) {
                    const Cell* right = gradient.at + p * gradient_point + n;
                    Floats* to = mine + p * per_point + n;
                    switch (vectors - n < kWide ? vectors - n : kWide) {
                        case 1: outer<1>(left, right, shape, steps, to); break;
                        case 2: outer<2>(left, right, shape, steps, to); break;
#if HAS_512
                        case 3: outer<3>(left, right, shape, steps, to); break;
                        default: outer<4>(left, right, shape, steps, to);
#endif
                    }
                }
            }
        }
#pragma omp barrier
        // G' dU G
        const Share rows(per_point, team);
        for (int64_t at = rows.begin; ok && at < rows.end; ++at) {
            Floats u[4][4], d[3][4];
            for (int i = 0; i < kPoints; ++i) {
                Floats sum = {};
                for (int t = 0; t < team.size; ++t) sum += sums.at[t * per_thread + i * per_point + at];
                u[i / 4][i % 4] = sum;
            }
            for (int j = 0; j < 4; ++j) {
                const Floats plus = (u[1][j] + u[2][j]) * 0.5f, minus = (u[1][j] - u[2][j]) * 0.5f;
                d[0][j] = u[0][j] + plus, d[1][j] = minus, d[2][j] = plus + u[3][j];
            }
            for (int i = 0; i < 3; ++i) {
                const Floats plus = (d[i][1] + d[i][2]) * 0.5f, minus = (d[i][1] - d[i][2]) * 0.5f;
                float* to = dtaps + (i * 3 * per_point + at) * V;
                store(to, d[i][0] + plus);
                store(to + per_point * V, minus);
                store(to + 2 * per_point * V, plus + d[i][3]);
            }
        }
    }
    if (dbias)
        for (int64_t n = 0; n < vectors; ++n) {
            Floats sum = {};
            for (int t = 0; t < threads; ++t) sum += sums.at[t * per_thread + kPoints * per_point + n];
            store(dbias + n * V, sum);
        }
    return ok;
}

}  // namespace

// Tensors are dense NHWC of ELEMENT, float or Bf16; taps, bias and their gradients are float. Channels must be
// multiples of `winograd_channels()`, 0 where this processor has no kernel for ELEMENT. Each returns 1, or 0 when
// memory ran out: then its outputs hold nothing of use.

extern "C" int64_t winograd_channels() {
#if HAS_512 || defined(__AVX2__)
    return std::is_same_v<T, float> || HAS_PAIRS ? V : 0;
#else
    return 0;  // not measured elsewhere
#endif
}

extern "C" int winograd_forward(const T* x, const float* taps, const float* bias, T* y, int64_t images,
                                int64_t height, int64_t width, int64_t inputs, int64_t outputs, int mirror,
                                int threads) {
    return forward(x, taps, bias, y, Shape{images, height, width, inputs, outputs}, mirror != 0, threads);
}

extern "C" int winograd_weight_gradient(const T* x, const T* dy, float* dtaps, float* dbias, int64_t images,
                                        int64_t height, int64_t width, int64_t inputs, int64_t outputs, int threads) {
    return weight_gradient(x, dy, dtaps, dbias, Shape{images, height, width, inputs, outputs}, threads);
}
