// Batch norm, IF or LIF neuron and 2 x 2 max pooling in one pass over memory, forward and backward.
//
// Tensors are dense [B, H, W, C] (channels_last), float or bfloat16; everything inside is float. The
// neuron's charge is h = keep * v + y with y = (x - mean) * scale + shift: the caller folds what LIF
// does to the current into scale and shift. Spikes and potentials are recomputed in backward.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int L = 16;  // channels that are worked on at once: one AVX-512 register of floats
typedef float Floats __attribute__((vector_size(4 * L)));
typedef int32_t Mask __attribute__((vector_size(4 * L)));  // -1 where true
typedef uint32_t Words __attribute__((vector_size(4 * L)));
typedef uint16_t Halves __attribute__((vector_size(2 * L)));

typedef uint16_t bf16;

template <class V> V bits(const auto &from) {
    static_assert(sizeof(V) == sizeof(from));
    V to;
    std::memcpy(&to, &from, sizeof(V));
    return to;
}

// The first n of L values; n is the constant L except at the end of a row of channels.
inline Floats load(const float *p, int n) {
    Floats v = {};
    if (n == L) std::memcpy(&v, p, sizeof(v));
    else std::memcpy(&v, p, sizeof(float) * n);
    return v;
}

inline Floats load(const bf16 *p, int n) {
    Halves h = {};
    if (n == L) std::memcpy(&h, p, sizeof(h));
    else std::memcpy(&h, p, sizeof(bf16) * n);
    return bits<Floats>(__builtin_convertvector(h, Words) << 16);
}

inline void store(float *p, Floats v, int n) {
    if (n == L) std::memcpy(p, &v, sizeof(v));
    else std::memcpy(p, &v, sizeof(float) * n);
}

inline void store(bf16 *p, Floats v, int n) {
    Words w = bits<Words>(v);
    // Round to nearest even; a NaN keeps its upper half and becomes quiet.
    const Mask nan = v != v;
    const Words rounded = (w + 0x7fff + ((w >> 16) & 1)) >> 16, quiet = (w >> 16) | 0x40;
    const Halves h = __builtin_convertvector(nan ? quiet : rounded, Halves);
    if (n == L) std::memcpy(p, &h, sizeof(h));
    else std::memcpy(p, &h, sizeof(bf16) * n);
}

inline void store_spikes(float *p, Mask s, int n) { store(p, s ? Floats{} + 1.0f : Floats{}, n); }

inline void store_spikes(bf16 *p, Mask s, int n) {
    const Halves h = __builtin_convertvector(bits<Words>(s) & 0x3f80, Halves);
    if (n == L) std::memcpy(p, &h, sizeof(h));
    else std::memcpy(p, &h, sizeof(bf16) * n);
}

}  // namespace

extern "C" {

struct Shape {
    int64_t steps, images, height, width, channels;
    int32_t pool;    // 1 or 2
    int32_t repeat;  // x is [N, H, W, C], the same at every step
};

struct Neuron {
    float keep, threshold, reset, alpha;
    int32_t soft;  // subtract the threshold instead of going to `reset`
};

// Vectors over channels.
struct Norm {
    const float *mean, *scale, *shift;
};
}

namespace {

struct Window {
    int64_t pixels[4];  // offsets of the window's pixels in an image, in pixels, in the order of rows
    int count;
    int64_t pooled;  // offset of the window in the pooled image, -1 for an edge that is in no window
};

// Calls f(image, first window, number of windows in a row of windows) is spelled out by the callers:
// this gives window j of row i.
inline Window window_of(const Shape &s, int64_t i, int64_t j) {
    if (s.pool == 1) return {{i * s.width + j}, 1, i * s.width + j};
    Window w{{}, 0, -1};
    for (int64_t y = 2 * i; y < std::min(2 * i + 2, s.height); y++)
        for (int64_t x = 2 * j; x < std::min(2 * j + 2, s.width); x++) w.pixels[w.count++] = y * s.width + x;
    if (w.count == 4) w.pooled = i * (s.width / 2) + j;
    return w;
}

inline int64_t rows_of(const Shape &s) { return (s.height + s.pool - 1) / s.pool; }
inline int64_t columns_of(const Shape &s) { return (s.width + s.pool - 1) / s.pool; }

template <bool SOFT> inline Floats after_spike(Floats h, Mask s, const Neuron &n) {
    if (SOFT) return s ? h - n.threshold : h;
    return s ? Floats{} + n.reset : h;
}

// Spikes of one window and L channels; returns how many (as negative counts per lane).
template <class T, bool SOFT>
inline Mask fire_window(const Shape &s, const Neuron &neuron, const Norm &norm, const T *x, T *spikes, T *out,
                        int64_t image, const Window &w, int64_t c, int n, Mask *any) {
    const int64_t plane = s.height * s.width, C = s.channels;
    const Floats mean = load(norm.mean + c, n), scale = load(norm.scale + c, n), shift = load(norm.shift + c, n);
    Mask fired = {};
    for (int64_t t = 0; t < s.steps; t++) any[t] = Mask{};
    for (int p = 0; p < w.count; p++) {
        Floats v = Floats{} + neuron.reset, y = {};
        for (int64_t t = 0; t < s.steps; t++) {
            const int64_t at = ((t * s.images + image) * plane + w.pixels[p]) * C + c;
            if (!s.repeat) y = (load(x + at, n) - mean) * scale + shift;
            else if (t == 0) y = (load(x + (image * plane + w.pixels[p]) * C + c, n) - mean) * scale + shift;
            v = neuron.keep * v + y;
            const Mask spike = v >= neuron.threshold;
            if (spikes) store_spikes(spikes + at, spike, n);
            fired += spike;
            any[t] |= spike;
            v = after_spike<SOFT>(v, spike, neuron);
        }
    }
    if (out && w.pooled >= 0) {
        const int64_t small = (s.height / s.pool) * (s.width / s.pool);
        for (int64_t t = 0; t < s.steps; t++)
            store_spikes(out + ((t * s.images + image) * small + w.pooled) * C + c, any[t], n);
    }
    return fired;
}

template <class T, bool SOFT>
int64_t forward(const Shape &s, const Neuron &neuron, const Norm &norm, const T *x, T *spikes, T *out, int threads) {
    const int64_t rows = rows_of(s), columns = columns_of(s), C = s.channels, whole = C / L * L;
    int64_t total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        std::vector<Mask> any(s.steps);
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < s.images * rows; unit++) {
            Mask fired = {};
            for (int64_t j = 0; j < columns; j++) {
                const Window w = window_of(s, unit % rows, j);
                for (int64_t c = 0; c < whole; c += L)
                    fired += fire_window<T, SOFT>(s, neuron, norm, x, spikes, out, unit / rows, w, c, L, any.data());
                if (whole < C) {
                    const int n = int(C - whole);
                    Mask f = fire_window<T, SOFT>(s, neuron, norm, x, spikes, out, unit / rows, w, whole, n, any.data());
                    for (int l = n; l < L; l++) f[l] = 0;
                    fired += f;
                }
            }
            for (int l = 0; l < L; l++) total -= fired[l];
        }
    }
    return total;
}

// What backward knows of one thread: potentials and routes of a window, sums of a row of windows.
struct Scratch {
    std::vector<Floats> h;    // [4, T] potentials before the reset
    std::vector<Mask> route;  // [4, T] where the pooled gradient goes
    std::vector<Mask> any;    // [T]
    std::vector<Floats> sums;  // [C / L, 2] of g and g (x - mean)
};

// dx = scale * g + slope * (x - mean) + offset, slope and offset being batch norm's own gradient.
struct Apply {
    const float *slope, *offset;
};

template <class T, bool SOFT, bool SUMS, bool APPLY>
inline void back_window(const Shape &s, const Neuron &neuron, const Norm &norm, const Apply &apply, const T *x,
                        const T *g_spikes, const T *g_out, T *dx, int64_t image, const Window &w, int64_t c, int n,
                        Scratch &mine) {
    const int64_t plane = s.height * s.width, C = s.channels, steps = s.steps;
    const int64_t small = (s.height / s.pool) * (s.width / s.pool);
    const Floats mean = load(norm.mean + c, n), scale = load(norm.scale + c, n), shift = load(norm.shift + c, n);
    const bool routed = g_out && w.pooled >= 0;
    Floats *const h = mine.h.data();
    Mask *const route = mine.route.data(), *const any = mine.any.data();
    for (int64_t t = 0; t < steps; t++) any[t] = Mask{};
    for (int p = 0; p < w.count; p++) {
        Floats v = Floats{} + neuron.reset, y = {};
        for (int64_t t = 0; t < steps; t++) {
            const int64_t at = ((s.repeat ? image : t * s.images + image) * plane + w.pixels[p]) * C + c;
            if (!s.repeat || t == 0) y = (load(x + at, n) - mean) * scale + shift;
            v = neuron.keep * v + y;
            const Mask spike = v >= neuron.threshold;
            h[p * steps + t] = v;
            route[p * steps + t] = spike & ~any[t];
            any[t] |= spike;
            v = after_spike<SOFT>(v, spike, neuron);
        }
    }
    // In a silent window every value is the maximum, and the first one gets the gradient.
    for (int64_t t = 0; t < steps; t++) route[t] |= ~any[t];

    Floats sum_g = {}, sum_gx = {};
    const float curve = 1.57079632679489662f * neuron.alpha, height = neuron.alpha / 2;
    const Floats slope = APPLY ? load(apply.slope + c, n) : Floats{};
    const Floats offset = APPLY ? load(apply.offset + c, n) : Floats{};
    for (int p = 0; p < w.count; p++) {
        Floats g_v = {}, g_sum = {};  // of the potential after the reset; of a current that is repeated
        for (int64_t t = steps - 1; t >= 0; t--) {
            const int64_t frame = t * s.images + image;
            Floats g = {};
            if (g_spikes) g = load(g_spikes + (frame * plane + w.pixels[p]) * C + c, n);
            if (routed) {
                const Floats from = load(g_out + (frame * small + w.pooled) * C + c, n);
                g += route[p * steps + t] ? from : Floats{};
            }
            const Floats v = h[p * steps + t], far = curve * (v - neuron.threshold);
            // ATan surrogate; the reset is a constant, and a hard one lets no gradient through.
            g *= height / (1.0f + far * far);
            g += SOFT || neuron.threshold > 3e38f ? g_v : (v >= neuron.threshold ? Floats{} : g_v);
            g_v = neuron.keep * g;
            if (s.repeat) {
                g_sum += g;
                if (t > 0) continue;
                g = g_sum;
            }
            const int64_t at = ((s.repeat ? image : frame) * plane + w.pixels[p]) * C + c;
            if (SUMS || APPLY) {
                const Floats centred = load(x + at, n) - mean;
                if (SUMS) sum_g += g, sum_gx += g * centred;
                if (APPLY) store(dx + at, scale * g + (slope * centred + offset), n);
            }
        }
    }
    if (SUMS) mine.sums[c / L * 2] += sum_g, mine.sums[c / L * 2 + 1] += sum_gx;
}

// sums: [2, C] doubles, of g and g (x - mean).
template <class T, bool SOFT, bool SUMS, bool APPLY>
void backward(const Shape &s, const Neuron &neuron, const Norm &norm, const Apply &apply, const T *x,
              const T *g_spikes, const T *g_out, T *dx, double *sums, int threads) {
    const int64_t rows = rows_of(s), columns = columns_of(s), C = s.channels, whole = C / L * L;
    std::vector<double> parts(SUMS ? threads * 2 * C : 0);
#pragma omp parallel num_threads(threads)
    {
        const int64_t blocks = (C + L - 1) / L;
        Scratch mine{std::vector<Floats>(4 * s.steps), std::vector<Mask>(4 * s.steps), std::vector<Mask>(s.steps),
                     std::vector<Floats>(SUMS ? 2 * blocks : 0)};
        std::vector<double> total(SUMS ? 2 * C : 0);
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < s.images * rows; unit++) {
            for (int64_t j = 0; j < columns; j++) {
                const Window w = window_of(s, unit % rows, j);
                const int64_t image = unit / rows;
                for (int64_t c = 0; c < whole; c += L)
                    back_window<T, SOFT, SUMS, APPLY>(s, neuron, norm, apply, x, g_spikes, g_out, dx, image, w, c, L,
                                                      mine);
                if (whole < C)
                    back_window<T, SOFT, SUMS, APPLY>(s, neuron, norm, apply, x, g_spikes, g_out, dx, image, w, whole,
                                                      int(C - whole), mine);
            }
            // A float sum over one row of windows, doubles beyond.
            if (SUMS)
                for (int64_t b = 0; b < 2 * blocks; b++) {
                    for (int l = 0; l < L && b / 2 * L + l < C; l++) total[(b % 2) * C + b / 2 * L + l] += mine.sums[b][l];
                    mine.sums[b] = Floats{};
                }
        }
        // Threads' parts are added in their order: the result does not depend on who is first.
#ifdef _OPENMP
        extern int omp_get_thread_num_() __asm__("omp_get_thread_num");
        const int me = omp_get_thread_num_();
#else
        const int me = 0;
#endif
        if (SUMS) std::copy(total.begin(), total.end(), parts.begin() + me * 2 * C);
    }
    if (SUMS)
        for (int64_t k = 0; k < threads; k++)
            for (int64_t c = 0; c < 2 * C; c++) sums[c] += parts[k * 2 * C + c];
}
}
