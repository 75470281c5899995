// Batch norm, IF or LIF neuron and 2 x 2 max pooling in one pass over memory, forward and backward.
//
// Tensors are dense [B, H, W, C] (channels_last) of ELEMENT; everything inside is float. The
// neuron's charge is h = keep * v + y with y = (x - mean) * scale + shift: the caller folds what LIF
// does to the current into scale and shift. Spikes and potentials are recomputed in backward, and so are the masks of
// a dropout: of the current, of which a kept y becomes y * gain + offset and a dropped one `fill`, or of the spikes. The
// sum with another tensor, `add`, of what is pooled comes with them: SEW's ADD.
//
// What is read of the spikes comes with them: membrane potentials, and sums over time of each neuron and channel, whose
// gradients backward takes.
//
// A library holds one of the variants; to compile them all would take most of a minute with AVX2:
//   ELEMENT  float, Bf16 or Fp16
//   STEPS    time steps as a constant, which lets the compiler unroll; 0 takes any number
//   SOFT     1: a spike subtracts the threshold; 0: the potential goes to `reset`
//   DROP     1: with dropout of the current; 2: of the spikes, before the sum and the pooling

#include <algorithm>
#include <type_traits>
#include <vector>

#include "philox.h"

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

// A dropout: its key and the lowest number that keeps an entry, see masks.py; whether time steps and a channel's pixels
// share their numbers. Of the spikes, a kept one becomes `spike`, a kept silence `silence`, and `gain` is their slope.
struct Drop {
    uint32_t key, high, lowest;
    int32_t fixed, channels;
    float gain, offset, fill, spike, silence;
};

// What is read of the layer besides its spikes, each float and null where it is not.
struct Reads {
    float *potential;  // [T, N, H, W, C] before firing
    float *neurons;    // [N, H, W, C] how often each fired
    float *channels;   // [N, rows of windows, C] how often each channel's neurons fired in such a row
    float *outputs;    // likewise, the sum of what comes out, without `add` where there is no pooling
};

// A float for each neuron [N, H, W, C], with channels next to each other and the strides given, 0 where an axis
// shares it. It is 0 where it is null.
struct Shared {
    const float *at;
    int64_t image, row, column;

    int64_t within(int p) const { return (p / 2) * row + (p % 2) * column; }
};

// Gradients of what is read: of the potential; of an image's channels in what comes out, at every value [N, C]; and what
// those of sums come to at every step of a neuron, where it is silent and where it fires.
struct Given {
    const float *potential, *outputs;
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
inline int64_t image_of(const Shape &s, int64_t unit) { return unit / ((s.height + s.pool - 1) / s.pool); }

INLINE Floats after_spike(Floats h, Mask s, const Neuron &n) {
    return select(s, SOFT ? h - n.threshold : Floats{} + n.reset, h);
}

INLINE Floats share_at(const Shared &share, const Place &at, int p, int64_t c, int n) {
    return share.at ? load(share.at + at.in(share) + share.within(p) + c, n) : Floats{};
}

// What is kept of some entries at one time step after the other.
struct Lot {
    const Drop &drop;
    Numbers four = {};

    // At step t, of `place` and what lies behind it in [N, H, W, C], or in [N, C] for whole channels.
    INLINE Mask kept(int64_t place, int64_t t) {
        const int64_t at = drop.fixed ? 0 : t;
        if (drop.lowest && (t == 0 || (at > 0 && at % 4 == 0)))
            four = philox(places(place), uint32_t(at / 4) ^ drop.high, drop.key);
        return no_less(number(four, at), drop.lowest);
    }
};

// What is kept of an image's channels, by blocks of them and steps; null where entries differ.
const Mask *draw_channels(const Shape &s, const Drop &drop, int64_t image, int64_t steps, std::vector<Mask> &kept) {
    if (!DROP || !drop.channels) return nullptr;
    for (int64_t c = 0; c < s.channels; c += V) {
        Lot lot{drop};
        for (int64_t t = 0; t < steps; t++) kept[c / V * steps + t] = lot.kept(image * s.channels + c, t);
    }
    return kept.data();
}

// Calls f(p, t, h, spike, kept) for the P values of a window and all steps, t fastest. `known` is what is kept of these
// channels, or null; `place` is theirs in [N, H, W, C].
template <int P, class N, class F>
INLINE void charge(const Shape &s, const Strides &by, const Neuron &neuron, const Norm &norm, const Drop &drop,
                   const Mask *known, int64_t place, int64_t steps, const T *x, int64_t c, N n, const F &f) {
    const Floats mean = load(norm.mean + c, n), scale = load(norm.scale + c, n), shift = load(norm.shift + c, n);
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
        Floats v = Floats{} + neuron.reset, y = {};
        Lot lot{drop};
#pragma GCC unroll 4
        for (int64_t t = 0; t < steps; t++) {
            if (!s.repeat || t == 0) y = (load(x + t * by.given_step + by.within(p), n) - mean) * scale + shift;
            Mask kept = {};
            if (DROP) kept = known ? known[t] : lot.kept(place + by.within(p), t);
            if (DROP == 1) v = neuron.keep * v + select(kept, y * drop.gain + drop.offset, Floats{} + drop.fill);
            else v = neuron.keep * v + y;
            const Mask spike = at_least(v, Floats{} + neuron.threshold);
            f(p, t, v, spike, kept);
            v = after_spike(v, spike, neuron);
        }
    }
}

// What a neuron passes on.
INLINE Floats passed(const Drop &drop, Mask spike, Mask kept) {
    if (DROP != 2) return ones(spike, 1.0f);
    return select(kept, select(spike, Floats{} + drop.spike, Floats{} + drop.silence), Floats{} + drop.fill);
}

// The number of spikes.
int64_t forward(const Shape &s, const Neuron &neuron, const Norm &norm, const Drop &drop, const T *x, const T *add,
                T *spikes, T *out, const Reads &reads, int threads) {
    const int64_t C = s.channels, whole = C / V * V, blocks = (C + V - 1) / V, steps = STEPS ? STEPS : s.steps;
    const Strides by(s);
    const bool sums = reads.neurons || reads.channels, graded = add || DROP == 2;
    int64_t total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        std::vector<Mask> many(steps);
        std::vector<Floats> many_best(steps);
        std::vector<Floats> in_row(blocks), out_row(blocks);  // spikes of a row of windows, and what comes out of it
        std::vector<Mask> many_kept(blocks * steps);
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < units_of(s); unit++) {
            Count fired;
            const Mask *const kept_channels = draw_channels(s, drop, image_of(s, unit), steps, many_kept);
            each_window(s, unit, [&](const Place &at, auto values) {
                constexpr int P = decltype(values)::value;
                const auto channels = [&](int64_t c, auto n) {
                    Mask few[STEPS ? STEPS : 1], *const any = STEPS ? few : many.data();
                    Floats few_best[STEPS ? STEPS : 1], *const best = STEPS ? few_best : many_best.data();
                    for (int64_t t = 0; t < steps; t++) any[t] = Mask{};
                    const Mask valid = first_lanes(n);
                    Floats over_time[P] = {}, passed_on = {};
                    const auto note = [&](int p, int64_t t, Floats v, Mask spike, Mask kept) {
                        const int64_t place = at.full + t * by.full_step + by.within(p) + c;
                        if (spikes) store_spikes(spikes + place, spike, n);
                        if (reads.potential) store(reads.potential + place, v, n);
                        if (sums) over_time[p] += ones(spike, 1.0f);
                        fired.add(spike & valid);
                        any[t] = any[t] | spike;
                        if (!graded) return;
                        Floats sum = passed(drop, spike, kept);
                        if (reads.outputs && s.pool == 1) passed_on += sum;
                        if (add) sum = stored(load(add + place, n) + sum, T());
                        best[t] = p == 0 ? sum : select(beats(sum, best[t]), sum, best[t]);
                    };
                    const Mask *const known = kept_channels ? kept_channels + c / V * steps : nullptr;
                    charge<P>(s, by, neuron, norm, drop, known, at.full + c, steps, x + at.given + c, c, n, note);
                    for (int p = 0; sums && p < P; p++) {
                        if (reads.neurons) store(reads.neurons + at.full + by.within(p) + c, over_time[p], n);
                        in_row[c / V] += over_time[p];
                    }
                    if (out && at.pooled >= 0)
                        for (int64_t t = 0; t < steps; t++) {
                            T *const to = out + at.pooled + t * by.pooled_step + c;
                            if (graded) store(to, best[t], n);
                            else store_spikes(to, any[t], n);
                            if (reads.outputs && s.pool > 1) passed_on += graded ? best[t] : ones(any[t], 1.0f);
                        }
                    if (reads.outputs) out_row[c / V] += passed_on;
                };
                for (int64_t c = 0; c < whole; c += V) channels(c, All());
                if (whole < C) channels(whole, int(C - whole));
            });
            total += fired.total();
            for (int64_t b = 0; (sums || reads.outputs) && b < blocks; b++) {
                const int n = int(std::min<int64_t>(V, C - b * V));
                if (reads.channels) store(reads.channels + unit * C + b * V, in_row[b], n);
                if (reads.outputs) store(reads.outputs + unit * C + b * V, out_row[b], n);
                in_row[b] = out_row[b] = Floats{};
            }
        }
    }
    return total;
}

// Gradient g of the current (summed over the steps of a repeated one): writes factor * g to dx, and adds
// to `sums` [2, C] the sums of g and g (x - mean). `add` and its gradient `d_add` are given where sums are pooled;
// without pooling d_add is g_out, and the caller knows it. g_out is a part of g_spikes where neither pooling nor a
// dropout of the spikes sets them apart.
void backward(const Shape &s, const Neuron &neuron, const Norm &norm, const Drop &drop, const float *factor, const T *x,
              const T *add, const T *g_spikes, const T *g_out, const Given &given, T *dx, T *d_add, double *sums,
              int threads) {
    const int64_t C = s.channels, whole = C / V * V, blocks = (C + V - 1) / V, steps = STEPS ? STEPS : s.steps;
    const Strides by(s);
    const bool graded = add || DROP == 2;
    const float curve = 1.57079632679489662f * neuron.alpha, height = neuron.alpha / 2;
    std::vector<double> parts(threads * 2 * C);
#pragma omp parallel num_threads(threads)
    {
        std::vector<Floats> many_h(STEPS ? 0 : 4 * steps);
        std::vector<Mask> many_mine(STEPS ? 0 : 4 * steps);
        std::vector<Floats> many_best(STEPS ? 0 : steps);
        std::vector<Mask> many_kept(STEPS ? 0 : 4 * steps), of_channels(blocks * steps);
        std::vector<Floats> row(2 * blocks);  // sums of g and g (x - mean) over a row of windows
        std::vector<double> total(2 * C);
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < units_of(s); unit++) {
            const Mask *const kept_channels = draw_channels(s, drop, image_of(s, unit), steps, of_channels);
            each_window(s, unit, [&](const Place &at, auto values) {
                constexpr int P = decltype(values)::value;
                const auto channels = [&](int64_t c, auto n) {
                    Floats few_h[STEPS ? P * STEPS : 1], *const h = STEPS ? few_h : many_h.data();
                    // Where a value is its window's maximum: the first that spiked; with `add`, the first maximum.
                    Mask few_mine[STEPS ? P * STEPS : 1], *const mine = STEPS ? few_mine : many_mine.data();
                    Floats few_best[STEPS ? STEPS : 1], *const best = STEPS ? few_best : many_best.data();
                    Mask few_kept[STEPS ? P * STEPS : 1], *const kept_at = STEPS ? few_kept : many_kept.data();
                    const auto note = [&](int p, int64_t t, Floats v, Mask spike, Mask kept) {
                        h[p * steps + t] = v;
                        if (DROP) kept_at[p * steps + t] = kept;
                        if (P == 1) return;
                        Mask better = spike;
                        if (graded) {
                            Floats sum = passed(drop, spike, kept);
                            if (add) {
                                const Floats other = load(add + at.full + t * by.full_step + by.within(p) + c, n);
                                sum = stored(other + sum, T());
                            }
                            better = p == 0 ? first_lanes(V) : beats(sum, best[t]);
                            best[t] = p == 0 ? sum : select(better, sum, best[t]);
                            for (int q = 0; q < p; q++) mine[q * steps + t] = mine[q * steps + t] & ~better;
                        } else
                            for (int q = 0; q < p; q++) better = better & ~mine[q * steps + t];
                        mine[p * steps + t] = better;
                    };
                    const Mask *const known = kept_channels ? kept_channels + c / V * steps : nullptr;
                    charge<P>(s, by, neuron, norm, drop, known, at.full + c, steps, x + at.given + c, c, n, note);
                    // In a silent window every value is the maximum, and the first one gets the gradient.
                    for (int64_t t = 0; P > 1 && !graded && t < steps; t++)
                        mine[t] = ~(mine[steps + t] | mine[2 * steps + t] | mine[3 * steps + t]);
                    const Floats mean = load(norm.mean + c, n), times = load(factor + c, n);
                    const Floats each = given.outputs ? load(given.outputs + at.image * C + c, n) : Floats{};
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
                            if ((g_out || given.outputs) && at.pooled >= 0) {
                                Floats from = each;
                                if (g_out) from += load(g_out + at.pooled + t * by.pooled_step + c, n);
                                pooled = P == 1 ? from : select(mine[p * steps + t], from, Floats{});
                                g += DROP == 2 ? select(kept_at[p * steps + t], pooled * drop.gain, Floats{}) : pooled;
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
                            if (DROP == 1) g = select(kept_at[p * steps + t], g * drop.gain, Floats{});
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
