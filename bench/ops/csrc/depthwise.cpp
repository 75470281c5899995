// Depthwise k x k convolution (stride 1, padding k / 2, odd k) over NHWC: forward, data gradient, weight gradient.
//
// One work item is one image and one block of V channels. Its pixels are first copied into a scratch buffer of
// "cells", zero-padded to the left and right, so that the inner loops know no borders; rows above and below the
// image are skipped instead. A cell is a vector of V channels that holds
//   Single: one pixel in float32, multiplied by FMA;
//   Pair:   a pixel and its right neighbour in bfloat16, multiplied by vdpbf16ps, which does two taps at once.
// Either way sums are float32. As k is odd, a Pair's last tap of a row is filled up with a zero: an infinity or NaN
// meets it too, and so reaches one column more than its window. The k x k taps are unrolled so that sums stay in registers.

#include "lanes.h"

namespace {

struct Shape {
    int64_t images, height, width, channels;
};

typedef ELEMENT T;

struct Single : SingleMath {
    // Pixel w into cell `w + pad`.
    static INLINE void pack_row(Cell* row, const T* from, int64_t width, int64_t step, int pad, int lanes) {
        for (int64_t w = 0; w < width; ++w) row[w + pad] = load(from + w * step, lanes);
    }

    // As pack_row, without padding; also adds the pixels up.
    static INLINE Floats pack_disjoint(Cell* row, const T* from, int64_t width, int64_t step, int lanes) {
        Floats sum = {};
        for (int64_t w = 0; w < width; ++w) sum += row[w] = load(from + w * step, lanes);
        return sum;
    }
};

#if HAS_PAIRS
struct Pair : PairMath {
    // Pixels w and w + 1 into cell `w + pad`, for w from -1 (pad >= 1 as k >= 3).
    static INLINE void pack_row(Cell* row, const Bf16* from, int64_t width, int64_t step, int pad, int lanes) {
        Cell left = {};
        for (int64_t w = 0; w < width; ++w) {
            const Cell here = widen(load_lanes<Halves>(from + w * step, lanes));
            row[w + pad - 1] = left | (here << 16);
            left = here;
        }
        row[width + pad - 1] = left;
    }

    // Pixels 2 w and 2 w + 1 into cell w; also adds the pixels up.
    static INLINE Floats pack_disjoint(Cell* row, const Bf16* from, int64_t width, int64_t step, int lanes) {
        Floats sum = {};
        for (int64_t w = 0; w < width; w += 2) {
            const Cell first = widen(load_lanes<Halves>(from + w * step, lanes));
            const Cell second = w + 1 < width ? widen(load_lanes<Halves>(from + (w + 1) * step, lanes)) : Cell{};
            row[w / 2] = first | (second << 16);
            sum += as<Floats>(first << 16) + as<Floats>(second << 16);
        }
        return sum;
    }
};
#endif

#if HAS_PAIRS
typedef std::conditional_t<std::is_same_v<T, Bf16>, Pair, Single> Math;
#else
typedef Single Math;
#endif
typedef Math::Cell Cell;

// ---- forward (and data gradient, with the taps mirrored) ------------------------------------------------------

// Outputs of one tile; kept below the registers, which also hold a row of taps and one cell.
template <int K>
constexpr int tile_width() {
    return kRegisters == 32 ? 16 : (K <= 5 ? 8 : 4);
}

template <int K, int TILE>
INLINE void row_of_taps(Floats (&sum)[TILE], const Cell* cells, const Cell* taps) {
    constexpr int kCells = (K + Math::taps - 1) / Math::taps;
    Cell tap[kCells];
#pragma GCC unroll 16
    for (int j = 0; j < kCells; ++j) tap[j] = taps[j];
    // Each cell is loaded once and serves every tap that lands in the tile.
#pragma GCC unroll 64
    for (int u = 0; u < TILE + (kCells - 1) * Math::taps; ++u) {
        const Cell cell = cells[u];
#pragma GCC unroll 16
        for (int j = 0; j < kCells; ++j) {
            const int t = u - j * Math::taps;
            if (t >= 0 && t < TILE) sum[t] = Math::add_product(sum[t], cell, tap[j]);
        }
    }
}

template <int K, int TILE>
INLINE void tile(const Cell* cells, int64_t row_cells, const Cell* taps, int rows, Floats bias, T* to, int64_t step,
                 int64_t outputs, int lanes) {
    constexpr int kCells = (K + Math::taps - 1) / Math::taps;
    Floats sum[TILE];
#pragma GCC unroll 16
    for (int t = 0; t < TILE; ++t) sum[t] = bias;
    for (int i = 0; i < rows; ++i) row_of_taps<K, TILE>(sum, cells + i * row_cells, taps + i * kCells);
#pragma GCC unroll 16
    for (int t = 0; t < TILE; ++t)
        if (t < outputs) store(to + t * step, sum[t], lanes);
}

// y[b, h, w, c] = bias[c] + sum_ij weight[c, i, j] x[b, h + i - k/2, w + j - k/2, c]; 0 when memory ran out.
template <int K>
int forward(const T* x, const float* weight, const float* bias, T* y, Shape shape, bool mirror, int threads) {
    constexpr int pad = K / 2, kCells = (K + Math::taps - 1) / Math::taps, TILE = tile_width<K>(), HALF = TILE / 2;
    const int64_t H = shape.height, W = shape.width, C = shape.channels;
    const int64_t blocks = (C + V - 1) / V, row_cells = round_up(W, HALF) + K - 1;

    Cells<Cell> taps(blocks * K * kCells);
    Cells<Floats> offsets(blocks);
    if (!taps.at || !offsets.at) return 0;
    for (int64_t c = 0; c < C; ++c) {
        // Lane by lane through memory: this is once per call, for k * k numbers a channel.
        const int64_t block = c / V, lane = c % V;
        if (bias) reinterpret_cast<float*>(offsets.at + block)[lane] = bias[c];
    }
    for (int64_t block = 0; block < blocks; ++block)
        for (int i = 0; i < K; ++i)
            for (int j = 0; j < kCells; ++j) {
                Floats tap[2] = {{}, {}};
                for (int n = 0; n < Math::taps && j * Math::taps + n < K; ++n) {
                    const int at = i * K + j * Math::taps + n;
                    for (int64_t lane = 0; lane < V && block * V + lane < C; ++lane)
                        tap[n][lane] = weight[(block * V + lane) * K * K + (mirror ? K * K - 1 - at : at)];
                }
                taps.at[(block * K + i) * kCells + j] = Math::cell(tap[0], tap[1]);
            }

    int ok = 1;
#pragma omp parallel num_threads(threads)
    {
        const Share share(shape.images * blocks, Team());
        Cells<Cell> cells(H * row_cells);
        if (!cells.at) {
#pragma omp atomic write
            ok = 0;
        }
        for (int64_t item = share.begin; cells.at && item < share.end; ++item) {
            const int64_t image = item / blocks, block = item % blocks;
            const int lanes = static_cast<int>(C - block * V < V ? C - block * V : V);
            const T* from = x + image * H * W * C + block * V;
            T* to = y + image * H * W * C + block * V;
            for (int64_t h = 0; h < H; ++h)
                Math::pack_row(cells.at + h * row_cells, from + h * W * C, W, C, pad, lanes);
            for (int64_t h = 0; h < H; ++h) {
                const int64_t first = h < pad ? 0 : h - pad, last = h + pad < H ? h + pad : H - 1;
                const Cell* top = cells.at + first * row_cells;
                const Cell* tap = taps.at + (block * K + first - h + pad) * kCells;
                const int rows = static_cast<int>(last - first + 1);
                for (int64_t w = 0; w < W;) {
                    T* target = to + (h * W + w) * C;
                    if (W - w > HALF) {
                        tile<K, TILE>(top + w, row_cells, tap, rows, offsets.at[block], target, C, W - w, lanes);
                        w += TILE;
                    } else {
                        tile<K, HALF>(top + w, row_cells, tap, rows, offsets.at[block], target, C, W - w, lanes);
                        w += HALF;
                    }
                }
            }
        }
    }
    return ok;
}

// ---- weight gradient ------------------------------------------------------------------------------------------

// Rows of taps summed at once: their k sums each, one gradient cell each and one image cell fit the registers.
template <int K>
constexpr int tap_rows() {
    return kRegisters == 16 ? 1 : K <= 5 ? K : K == 7 ? 4 : K == 9 ? 3 : 2;
}

// Adds to sums[a][j] the products of x with dy shifted by tap (first + a, j), for ROWS rows of taps.
template <int K, int ROWS, int MARGIN>
INLINE void some_taps(const Cell* x, int64_t x_cells, const Cell* dy, int64_t dy_cells, int64_t height, int first,
                      Floats* sums) {
    constexpr int pad = K / 2;
    Floats sum[ROWS][K];
#pragma GCC unroll 8
    for (int a = 0; a < ROWS; ++a)
#pragma GCC unroll 16
        for (int j = 0; j < K; ++j) sum[a][j] = Floats{};
    // Row r of x meets row r - (first + a) + pad of dy; rows outside the image are the margin's zeros.
    const int64_t begin = first > pad ? first - pad : 0;
    const int64_t last = height - 1 + first + ROWS - 1 - pad, end = last < height - 1 ? last : height - 1;
    for (int64_t r = begin; r <= end; ++r) {
        const Cell* image = x + r * x_cells;
        const Cell* gradient = dy + (r - first + pad + MARGIN) * dy_cells;
        for (int64_t w = 0; w < dy_cells; ++w) {
            Cell g[ROWS];
#pragma GCC unroll 8
            for (int a = 0; a < ROWS; ++a) g[a] = gradient[w - a * dy_cells];
#pragma GCC unroll 16
            for (int j = 0; j < K; ++j) {
                const Cell cell = image[w * Math::taps + j];
#pragma GCC unroll 8
                for (int a = 0; a < ROWS; ++a) sum[a][j] = Math::add_product(sum[a][j], cell, g[a]);
            }
        }
    }
#pragma GCC unroll 8
    for (int a = 0; a < ROWS; ++a)
#pragma GCC unroll 16
        for (int j = 0; j < K; ++j) sums[a * K + j] += sum[a][j];
}

// dweight[c, i, j] = sum_bhw dy[b, h, w, c] x[b, h + i - k/2, w + j - k/2, c], dbias[c] = sum_bhw dy[b, h, w, c].
template <int K>
int weight_gradient(const T* x, const T* dy, float* dweight, float* dbias, Shape shape, int threads) {
    constexpr int pad = K / 2, ROWS = tap_rows<K>(), MARGIN = ROWS - 1, REST = K % ROWS;
    const int64_t H = shape.height, W = shape.width, C = shape.channels;
    const int64_t blocks = (C + V - 1) / V, dy_cells = (W + Math::taps - 1) / Math::taps;
    const int64_t x_cells = dy_cells * Math::taps + K - 1;
    const int64_t sums_of_block = K * K + 1;  // the taps, then the bias

    // A thread's sums stand apart and are added up in the order of threads: same threads, same bits.
    Cells<Floats> sums(threads * blocks * sums_of_block);
    if (!sums.at) return 0;
    int ok = 1;
#pragma omp parallel num_threads(threads)
    {
        const Team team;
        const Share share(shape.images * blocks, team);
        Cells<Cell> image(H * x_cells), gradient((H + 2 * MARGIN) * dy_cells);
        const bool enough = image.at && gradient.at;
        if (!enough) {
#pragma omp atomic write
            ok = 0;
        }
        for (int64_t item = share.begin; enough && item < share.end; ++item) {
            const int64_t block = item % blocks, offset = item / blocks * H * W * C + block * V;
            const int lanes = static_cast<int>(C - block * V < V ? C - block * V : V);
            Floats* mine = sums.at + (team.me * blocks + block) * sums_of_block;
            Floats total = {};
            for (int64_t h = 0; h < H; ++h) {
                Math::pack_row(image.at + h * x_cells, x + offset + h * W * C, W, C, pad, lanes);
                total += Math::pack_disjoint(gradient.at + (h + MARGIN) * dy_cells, dy + offset + h * W * C, W, C, lanes);
            }
            mine[K * K] += total;
            int i = 0;
            for (; i + ROWS <= K; i += ROWS)
                some_taps<K, ROWS, MARGIN>(image.at, x_cells, gradient.at, dy_cells, H, i, mine + i * K);
            if (REST)
                some_taps<K, REST ? REST : 1, MARGIN>(image.at, x_cells, gradient.at, dy_cells, H, i, mine + i * K);
        }
    }
    const float* all = reinterpret_cast<const float*>(sums.at);
    for (int64_t c = 0; c < C; ++c)
        for (int64_t tap = 0; tap < sums_of_block; ++tap) {
            float sum = 0;
            for (int64_t t = 0; t < threads; ++t)
                sum += all[((t * blocks + c / V) * sums_of_block + tap) * V + c % V];
            if (tap < K * K) dweight[c * K * K + tap] = sum;
            else if (dbias) dbias[c] = sum;
        }
    return ok;
}

}  // namespace

// Tensors are dense NHWC of ELEMENT: float, Bf16 or Fp16; weight, bias and their gradients are float, weight as
// [C, k, k]. Each returns 1, or 0 for an unknown k or when memory ran out: then its outputs hold nothing of use.

#define FOR_KERNEL(CALL)        \
    switch (kernel) {           \
        case 3: CALL(3);        \
        case 5: CALL(5);        \
        case 7: CALL(7);        \
        case 9: CALL(9);        \
        case 11: CALL(11);      \
        default: return 0;      \
    }

extern "C" int depthwise_forward(const T* x, const float* weight, const float* bias, T* y, int64_t images,
                                 int64_t height, int64_t width, int64_t channels, int kernel, int mirror, int threads) {
    const Shape shape{images, height, width, channels};
#define CALL(K) return forward<K>(x, weight, bias, y, shape, mirror != 0, threads)
    FOR_KERNEL(CALL)
#undef CALL
}

extern "C" int depthwise_weight_gradient(const T* x, const T* dy, float* dweight, float* dbias, int64_t images,
                                         int64_t height, int64_t width, int64_t channels, int kernel, int threads) {
    const Shape shape{images, height, width, channels};
#define CALL(K) return weight_gradient<K>(x, dy, dweight, dbias, shape, threads)
    FOR_KERNEL(CALL)
#undef CALL
}
