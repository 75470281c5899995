// Batch norm, IF or LIF neuron and 2 x 2 max pooling in one pass over memory, forward and backward.
//
// Tensors are dense [B, H, W, C] (channels_last) of ELEMENT; everything inside is float. The
// neuron's charge is h = keep * v + y with y = (x - mean) * scale + shift: the caller folds what LIF
// does to the current into scale and shift. Spikes and potentials are recomputed in backward. Dropout of
// the current is applied on the way: a kept y becomes y * gain + offset, a dropped one `fill`. So is the sum
// with another tensor, `add`, of what is pooled: SEW's ADD.
//
// What is read of the spikes comes with them: membrane potentials, and sums over time of each neuron and channel, whose
// gradients backward takes.
//
// A library holds one of the variants; to compile them all would take most of a minute with AVX2:
//   ELEMENT  float, Bf16 or Fp16
//   STEPS    time steps as a constant, which lets the compiler unroll; 0 takes any number
//   SOFT     1: a spike subtracts the threshold; 0: the potential goes to `reset`
//   DROP     1: with dropout of the current

#include <algorithm>
#include <type_traits>
#include <vector>

#include "lanes.h"

namespace {

typedef ELEMENT T;

INLINE void store_spikes(T *to, Mask spikes, int n) { store_lanes(to, ones(spikes, T()), n); }

// Whether max pooling prefers v to what it has: as torch, the first of equal ones, and the last NaN.
INLINE Mask beats(Floats v, Floats best) { return above(v, best) | is_nan(v); }

}  // namespace

extern "C" {

struct Shape {
    int64_t steps, images, height, width, channels;
    int32_t pool;    // 1 or 2
    int32_t repeat;  // x is [N, H, W, C], the same at every step
};

struct Neuron {
    float keep, threshold, reset, alpha;
};

// Vectors over channels.
struct Norm {
    const float *mean, *scale, *shift;
};

// Dropout of the current; `keep` [T, N, H, W, C] with channels next to each other and the strides given,
// 0 where an axis shares the mask. No dropout where it is null.
struct Drop {
    const uint8_t *keep;
    int64_t step, image, row, column;
    float gain, offset, fill;

    int64_t within(int p) const { return (p / 2) * row + (p % 2) * column; }
};

// What is read of the layer besides its spikes, each float and null where it is not.
struct Reads {
    float *potential;  // [T, N, H, W, C] before firing
    float *neurons;    // [N, H, W, C] how often each fired
    float *channels;   // [N, rows of windows, C] how often each channel's neurons fired in such a row
};

// A float for each neuron [N, H, W, C], with channels next to each other and the strides given, 0 where an axis
// shares it. It is 0 where it is null.
struct Shared {
    const float *at;
    int64_t image, row, column;

    int64_t within(int p) const { return (p / 2) * row + (p % 2) * column; }
};

// Gradients of what is read: of the potential, and what those of sums come to at every step of a neuron, where it is
// silent and where it fires.
struct Given {
    const float *potential;
    Shared silent, firing;
};
}

namespace {

// One 2 x 2 window of spikes, or one spike by itself, and where it is. Offsets are in values, of
// channel 0 at step 0.
struct Place {
    int64_t full;    // of the window's first value in the spikes
    int64_t pooled;  // in the pooled spikes
    int64_t given;   // of the window's first value in x
    int64_t image, row, column;  // of the window's first value

    // Of the window's first value in what has strides for these.
    template <class S> int64_t in(const S &s) const { return image * s.image + row * s.row + column * s.column; }
};

// How far apart things are, in values.
struct Strides {
    int64_t row, column, full_step, pooled_step, given_step;

    explicit Strides(const Shape &s)
        : row(s.width * s.channels), column(s.channels), full_step(s.images * s.height * s.width * s.channels),
          pooled_step(s.images * (s.height / s.pool) * (s.width / s.pool) * s.channels),
          given_step(s.repeat ? 0 : full_step) {}

    // Of value p of a window.
    int64_t within(int p) const { return (p / 2) * row + (p % 2) * column; }
};

// Calls f(place, int constant P) for every window of row `unit` of windows: P is 4 where there is pooling,
// 1 where there is none, which with pooling is the last row or column of an odd image.
template <class F> inline void each_window(const Shape &s, int64_t unit, const F &f) {
    const int64_t C = s.channels, plane = s.height * s.width * C;
    const int64_t rows = (s.height + s.pool - 1) / s.pool, image = unit / rows, row = unit % rows;
    const int64_t start = image * plane + row * s.pool * s.width * C;
    const std::integral_constant<int, 1> single;
    const std::integral_constant<int, 4> window;
    if (s.pool == 1) {
        for (int64_t x = 0; x < s.width; x++)
            f(Place{start + x * C, start + x * C, start + x * C, image, row, x}, single);
        return;
    }
    const int64_t columns = s.width / 2, height = s.height / 2;
    int64_t done = 0;
    if (row < height) {
        const int64_t pooled = (image * height + row) * columns * C;
        for (int64_t x = 0; x < columns; x++)
            f(Place{start + 2 * x * C, pooled + x * C, start + 2 * x * C, image, 2 * row, 2 * x}, window);
        done = 2 * columns;
    }
    for (int64_t y = row * 2; y < std::min(row * 2 + 2, s.height); y++)
        for (int64_t x = done; x < s.width; x++) {
            const int64_t at = image * plane + (y * s.width + x) * C;
            f(Place{at, -1, at, image, y, x}, single);
        }
}

inline int64_t units_of(const Shape &s) { return s.images * ((s.height + s.pool - 1) / s.pool); }

INLINE Floats after_spike(Floats h, Mask s, const Neuron &n) {
    return select(s, SOFT ? h - n.threshold : Floats{} + n.reset, h);
}

INLINE Floats share_at(const Shared &share, const Place &at, int p, int64_t c, int n) {
    return share.at ? load(share.at + at.in(share) + share.within(p) + c, n) : Floats{};
}

INLINE Mask load_kept(const uint8_t *keep, int n) { return nonzero(load_lanes<Bytes>(keep, n)); }

// Calls f(p, t, h, spike) for the P values of a window and all steps, t fastest.
template <int P, class N, class F>
INLINE void charge(const Shape &s, const Strides &by, const Neuron &neuron, const Norm &norm, const Drop &drop,
                   const uint8_t *keep, int64_t steps, const T *x, int64_t c, N n, const F &f) {
    const Floats mean = load(norm.mean + c, n), scale = load(norm.scale + c, n), shift = load(norm.shift + c, n);
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
        Floats v = Floats{} + neuron.reset, y = {};
#pragma GCC unroll 4
        for (int64_t t = 0; t < steps; t++) {
            if (!s.repeat || t == 0) y = (load(x + t * by.given_step + by.within(p), n) - mean) * scale + shift;
            if (DROP) {
                const Mask kept = load_kept(keep + t * drop.step + drop.within(p), n);
                v = neuron.keep * v + select(kept, y * drop.gain + drop.offset, Floats{} + drop.fill);
            } else v = neuron.keep * v + y;
            const Mask spike = at_least(v, Floats{} + neuron.threshold);
            f(p, t, v, spike);
            v = after_spike(v, spike, neuron);
        }
    }
}

// The number of spikes.
int64_t forward(const Shape &s, const Neuron &neuron, const Norm &norm, const Drop &drop, const T *x, const T *add,
                T *spikes, T *out, const Reads &reads, int threads) {
    const int64_t C = s.channels, whole = C / V * V, blocks = (C + V - 1) / V, steps = STEPS ? STEPS : s.steps;
    const Strides by(s);
    const bool sums = reads.neurons || reads.channels;
    int64_t total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        std::vector<Mask> many(steps);
        std::vector<Floats> many_best(steps);
        std::vector<Floats> in_row(blocks);  // spikes of a row of windows
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < units_of(s); unit++) {
            Count fired;
            each_window(s, unit, [&](const Place &at, auto values) {
                constexpr int P = decltype(values)::value;
                const auto channels = [&](int64_t c, auto n) {
                    Mask few[STEPS ? STEPS : 1], *const any = STEPS ? few : many.data();
                    Floats few_best[STEPS ? STEPS : 1], *const best = STEPS ? few_best : many_best.data();
                    for (int64_t t = 0; t < steps; t++) any[t] = Mask{};
                    const Mask valid = first_lanes(n);
                    Floats over_time[P] = {};
                    const auto note = [&](int p, int64_t t, Floats v, Mask spike) {
                        const int64_t place = at.full + t * by.full_step + by.within(p) + c;
                        if (spikes) store_spikes(spikes + place, spike, n);
                        if (reads.potential) store(reads.potential + place, v, n);
                        if (sums) over_time[p] += ones(spike, 1.0f);
                        fired.add(spike & valid);
                        any[t] = any[t] | spike;
                        if (!add) return;
                        const Floats sum = stored(load(add + place, n) + ones(spike, 1.0f), T());
                        best[t] = p == 0 ? sum : select(beats(sum, best[t]), sum, best[t]);
                    };
                    charge<P>(s, by, neuron, norm, drop, drop.keep + at.in(drop) + c, steps, x + at.given + c, c, n,
                              note);
                    for (int p = 0; sums && p < P; p++) {
                        if (reads.neurons) store(reads.neurons + at.full + by.within(p) + c, over_time[p], n);
                        in_row[c / V] += over_time[p];
                    }
                    if (out && at.pooled >= 0)
                        for (int64_t t = 0; t < steps; t++) {
                            T *const to = out + at.pooled + t * by.pooled_step + c;
                            if (add) store(to, best[t], n);
                            else store_spikes(to, any[t], n);
                        }
                };
                for (int64_t c = 0; c < whole; c += V) channels(c, All());
                if (whole < C) channels(whole, int(C - whole));
            });
            total += fired.total();
            for (int64_t b = 0; sums && b < blocks; b++) {
                if (reads.channels)
                    store(reads.channels + unit * C + b * V, in_row[b], int(std::min<int64_t>(V, C - b * V)));
                in_row[b] = Floats{};
            }
        }
    }
    return total;
}

// Gradient g of the current (summed over the steps of a repeated one): writes factor * g to dx, and adds
// to `sums` [2, C] the sums of g and g (x - mean). `add` and its gradient `d_add` are given where sums are pooled;
// without pooling d_add is g_out, and the caller knows it.
void backward(const Shape &s, const Neuron &neuron, const Norm &norm, const Drop &drop, const float *factor, const T *x,
              const T *add, const T *g_spikes, const T *g_out, const Given &given, T *dx, T *d_add, double *sums,
              int threads) {
    const int64_t C = s.channels, whole = C / V * V, blocks = (C + V - 1) / V, steps = STEPS ? STEPS : s.steps;
    const Strides by(s);
    const float curve = 1.57079632679489662f * neuron.alpha, height = neuron.alpha / 2;
    std::vector<double> parts(threads * 2 * C);
#pragma omp parallel num_threads(threads)
    {
        std::vector<Floats> many_h(STEPS ? 0 : 4 * steps);
        std::vector<Mask> many_mine(STEPS ? 0 : 4 * steps);
        std::vector<Floats> many_best(STEPS ? 0 : steps);
        std::vector<Floats> row(2 * blocks);  // sums of g and g (x - mean) over a row of windows
        std::vector<double> total(2 * C);
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < units_of(s); unit++) {
            each_window(s, unit, [&](const Place &at, auto values) {
                constexpr int P = decltype(values)::value;
                const auto channels = [&](int64_t c, auto n) {
                    Floats few_h[STEPS ? P * STEPS : 1], *const h = STEPS ? few_h : many_h.data();
                    // Where a value is its window's maximum: the first that spiked; with `add`, the first maximum.
                    Mask few_mine[STEPS ? P * STEPS : 1], *const mine = STEPS ? few_mine : many_mine.data();
                    Floats few_best[STEPS ? STEPS : 1], *const best = STEPS ? few_best : many_best.data();
                    const uint8_t *const keep = drop.keep + at.in(drop) + c;
                    const auto note = [&](int p, int64_t t, Floats v, Mask spike) {
                        h[p * steps + t] = v;
                        if (P == 1) return;
                        Mask better = spike;
                        if (add) {
                            const Floats other = load(add + at.full + t * by.full_step + by.within(p) + c, n);
                            const Floats sum = stored(other + ones(spike, 1.0f), T());
                            better = p == 0 ? first_lanes(V) : beats(sum, best[t]);
                            best[t] = p == 0 ? sum : select(better, sum, best[t]);
                            for (int q = 0; q < p; q++) mine[q * steps + t] = mine[q * steps + t] & ~better;
                        } else
                            for (int q = 0; q < p; q++) better = better & ~mine[q * steps + t];
                        mine[p * steps + t] = better;
                    };
                    charge<P>(s, by, neuron, norm, drop, keep, steps, x + at.given + c, c, n, note);
                    // In a silent window every value is the maximum, and the first one gets the gradient.
                    for (int64_t t = 0; P > 1 && !add && t < steps; t++)
                        mine[t] = ~(mine[steps + t] | mine[2 * steps + t] | mine[3 * steps + t]);
                    const Floats mean = load(norm.mean + c, n), times = load(factor + c, n);
                    Floats sum_g = {}, sum_gx = {};
#pragma GCC unroll 4
                    for (int p = 0; p < P; p++) {
                        // Of the potential after the reset; of a current that is repeated.
                        Floats g_v = {}, g_sum = {};
                        // From sums over the spikes.
                        const Floats silent = share_at(given.silent, at, p, c, n);
                        const Floats firing = share_at(given.firing, at, p, c, n);
#pragma GCC unroll 4
                        for (int64_t t = steps - 1; t >= 0; t--) {
                            Floats g = {}, pooled = {};
                            const int64_t place = at.full + t * by.full_step + by.within(p) + c;
                            if (g_spikes) g = load(g_spikes + place, n);
                            if (P > 1 && g_out) {
                                const Floats from = load(g_out + at.pooled + t * by.pooled_step + c, n);
                                pooled = select(mine[p * steps + t], from, Floats{});
                                g += pooled;
                            }
                            if (d_add) store(d_add + place, pooled, n);
                            const Floats v = h[p * steps + t], far = curve * (v - neuron.threshold);
                            const Mask spike = at_least(v, Floats{} + neuron.threshold);
                            g += select(spike, firing, silent);
                            // The reset is a constant, and a hard one lets no gradient through.
                            Floats direct = SOFT ? g_v : select(spike, Floats{}, g_v);
                            if (given.potential) direct += load(given.potential + place, n);
                            // ATan surrogate.
                            g = g * height * reciprocal(1.0f + far * far) + direct;
                            // Rounded before a potential's gradient is added, so that to add 0 changes no bit.
                            g_v = rounded_alone(neuron.keep * g);
                            if (DROP) {
                                const Mask kept = load_kept(keep + t * drop.step + drop.within(p), n);
                                g = select(kept, g * drop.gain, Floats{});
                            }
                            if (s.repeat) {
                                g_sum += g;
                                if (t > 0) continue;
                                g = g_sum;
                            }
                            const int64_t from = at.given + t * by.given_step + by.within(p) + c;
                            sum_g += g;
                            sum_gx += g * (load(x + from, n) - mean);
                            store(dx + from, times * g, n);
                        }
                    }
                    row[c / V * 2] += sum_g;
                    row[c / V * 2 + 1] += sum_gx;
                };
                for (int64_t c = 0; c < whole; c += V) channels(c, All());
                if (whole < C) channels(whole, int(C - whole));
            });
            // Floats over one row of windows, doubles beyond.
            for (int64_t b = 0; b < 2 * blocks; b++) {
                for (int l = 0; l < V && b / 2 * V + l < C; l++) total[(b % 2) * C + b / 2 * V + l] += row[b][l];
                row[b] = Floats{};
            }
        }
        std::copy(total.begin(), total.end(), parts.begin() + Team().me * 2 * C);
    }
    // In the order of the threads: the result does not depend on who is first.
    for (int64_t k = 0; k < threads; k++)
        for (int64_t c = 0; c < 2 * C; c++) sums[c] += parts[k * 2 * C + c];
}

void back(const Shape &s, const Neuron &neuron, const Norm &norm, const Drop &drop, const float *inverse_variance,
          const T *x, const T *add, const T *g_spikes, const T *g_out, const Given &given, T *dx, T *d_add, double *sums,
          int threads) {
    const int64_t C = s.channels, rows = s.images * s.height * s.width * (s.repeat ? 1 : s.steps);
    if (!inverse_variance) {
        backward(s, neuron, norm, drop, norm.scale, x, add, g_spikes, g_out, given, dx, d_add, sums, threads);
        return;
    }
    // Batch norm's gradient needs sums over all of g: g is put down in dx, and completed in a second pass.
    const std::vector<float> one(C, 1.0f);
    backward(s, neuron, norm, drop, one.data(), x, add, g_spikes, g_out, given, dx, d_add, sums, threads);
    std::vector<float> slope(C), offset(C);
    for (int64_t c = 0; c < C; c++) {
        slope[c] = float(-norm.scale[c] * inverse_variance[c] * sums[C + c] / double(rows));
        offset[c] = float(-norm.scale[c] * sums[c] / double(rows));
    }
    const auto complete = [&](int64_t r, int64_t c, auto n) {
        const Floats centred = load(x + r * C + c, n) - load(norm.mean + c, n), g = load(dx + r * C + c, n);
        const Floats own = load(&slope[c], n) * centred + load(&offset[c], n);
        store(dx + r * C + c, load(norm.scale + c, n) * g + own, n);
    };
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        int64_t c = 0;
        for (; c + V <= C; c += V) complete(r, c, All());
        if (c < C) complete(r, c, int(C - c));
    }
}

}  // namespace

// What Python calls; absent tensors are null, `drop` too where DROP is 0.
extern "C" {

// Returns the number of spikes.
int64_t fire_forward(const Shape *s, const Neuron *neuron, const Norm *norm, const Drop *drop, const T *x,
                     const T *add, T *spikes, T *out, const Reads *reads, int threads) {
    return forward(*s, *neuron, *norm, drop ? *drop : Drop{}, x, add, spikes, out, *reads, threads);
}

// `sums` [2, C], zeros to start with, receives those of g and g (x - mean), g being the gradient of the
// current. `inverse_variance` is null where the statistics are constants.
void fire_backward(const Shape *s, const Neuron *neuron, const Norm *norm, const Drop *drop,
                   const float *inverse_variance, const T *x, const T *add, const T *g_spikes, const T *g_out,
                   const Given *given, T *dx, T *d_add, double *sums, int threads) {
    back(*s, *neuron, *norm, drop ? *drop : Drop{}, inverse_variance, x, add, g_spikes, g_out, *given, dx, d_add, sums,
         threads);
}
}
