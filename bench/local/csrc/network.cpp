// One network of excitatory and inhibitory neurons with a plastic input layer, stepped with Euler's method.
//
// The order within a step is Brian2's: state, thresholds, synapses (before learning's presynaptic part, then its
// postsynaptic one), resets. What only changes at a spike is touched only there: input weights, traces of inputs,
// the decay of unused weights. No maths flag may change a number: `bench/local/reference.py` gives the same.

#include <cmath>
#include <cstdint>
#include <initializer_list>

extern "C" {

struct Population {
    double leak;       // dt / tau of the membrane
    double rest, reset, inhibition;  // mV; excitation reverses at 0 mV
    double keep_e, keep_i;           // 1 - dt / tau of the conductances
    int64_t refractory;              // steps
    int64_t hold;                    // whether the potential stands still while refractory
};

struct Network {
    int64_t inputs, neurons, terminals;       // terminals: of an input, one for each delay of 0, 1, ... steps
    int64_t slots_ei, slots_ie;               // of the rings, longest delay + 1
    Population e, i;
    double threshold_i;
    double theta_keep, theta_plus;
    double w_ei, w_ie;
    const int32_t *start;      // [inputs * terminals + 1] into `order`
    const int32_t *order;      // [inputs * neurons] the neurons of an input, by delay
    const int32_t *delay_in;   // [inputs, neurons] steps
    const int32_t *delay_ei;   // [neurons]
    const int32_t *delay_ie;   // [neurons, neurons] from, to; -1 where there is no synapse
    double potentiation, depression, target, mu, w_max;
    double rate_pre;           // dt / tau of the inputs' trace
    double keep_post, keep_triplet;
    int64_t nearest, triplet;
};

struct State {
    int64_t step;
    double *w;                              // [inputs, neurons]
    double *v, *ge, *gi, *theta, *post, *post2;   // [neurons]
    int64_t *free_e;                        // [neurons] the step from which it may fire again
    double *v_i, *ge_i;
    int64_t *free_i;
    double *trace;                          // [inputs * terminals] right after the last arrival
    int64_t *last;                          // [inputs * terminals] step of the last arrival
    double *ring_ei, *ring_ie;              // [slots, neurons] conductance under way
};

struct Run {
    int64_t steps, window;     // spikes are counted in the first `window` steps
    int64_t learn, adapt, live;
    double unused;             // k_p / tau^2 per square step; 0 is no decay
    const double *sign;        // [neurons] of potentiation
    const double *threshold;   // [neurons]; under `live`, theta is added
    const int32_t *offset;     // [terminals - 1 + steps + 1] into `spikes`; begins terminals - 1 steps ago
    const int32_t *spikes;     // inputs
    int64_t *count_e, *count_i;
    int32_t *raster;           // [capacity, 2] step and neuron; inhibitory neurons after the excitatory ones
    int64_t capacity, fired;
};

static inline double clipped(double w, double most) { return w < 0 ? 0 : w > most ? most : w; }

static void arrive(const Network &net, State &s, const Run &run, int64_t input, int64_t terminal, int64_t t) {
    const int64_t n = net.neurons, at = input * net.terminals + terminal;
    const int32_t *first = net.order + net.start[at], *end = net.order + net.start[at + 1];
    if (first == end) return;
    const double gap = double(t - s.last[at]);
    const double kept = run.unused > 0 ? std::exp(-run.unused * gap * gap) : 1.0;
    const double rate = run.learn ? net.depression : 0.0, most = net.w_max;
    double *__restrict w = s.w + input * n, *__restrict ge = s.ge;
    const double *__restrict post = s.post;
    if (net.terminals == 1) {
        for (int64_t j = 0; j < n; ++j) {
            const double now = w[j] * kept;
            ge[j] += now;
            w[j] = run.learn ? clipped(now - rate * post[j], most) : now;
        }
    } else {
        for (const int32_t *p = first; p != end; ++p) {
            const int64_t j = *p;
            const double now = w[j] * kept;
            ge[j] += now;
            w[j] = run.learn ? clipped(now - rate * post[j], most) : now;
        }
    }
    s.trace[at] = net.nearest ? 1.0 : s.trace[at] * std::exp(-gap * net.rate_pre) + 1.0;
    s.last[at] = t;
}

static void learn_post(const Network &net, State &s, const Run &run, int64_t j, int64_t t) {
    const double factor = run.sign[j] * net.potentiation * (net.triplet ? s.post2[j] : 1.0);
    for (int64_t k = 0; k < net.inputs; ++k) {
        const int64_t at = k * net.terminals + net.delay_in[k * net.neurons + j];
        const double x = s.trace[at] == 0 ? 0.0 : s.trace[at] * std::exp(-double(t - s.last[at]) * net.rate_pre);
        double &w = s.w[k * net.neurons + j];
        const double room = net.mu == 0 ? 1.0 : std::pow(net.w_max - w, net.mu);
        w = clipped(w + factor * (x - net.target) * room, net.w_max);
    }
}

void network_run(const Network *net_, State *s_, Run *run_) {
    const Network &net = *net_;
    State &s = *s_;
    Run &run = *run_;
    const int64_t n = net.neurons, past = net.terminals - 1;
    const Population e = net.e, i = net.i;
    const double live = run.live ? 1.0 : 0.0, theta_keep = run.adapt ? net.theta_keep : 1.0;
    run.fired = 0;
    // What decays for long becomes subnormal, and arithmetic on that is a hundred times slower.
    for (double *values : {s.ge, s.gi, s.theta, s.post, s.post2, s.ge_i})
        for (int64_t j = 0; j < n; ++j)
            if (values[j] < 1e-100) values[j] = 0;
    for (int64_t k = 0; k < run.steps; ++k) {
        const int64_t t = s.step + k;
        double *__restrict v = s.v, *__restrict ge = s.ge, *__restrict gi = s.gi, *__restrict theta = s.theta;
        double *__restrict post = s.post, *__restrict post2 = s.post2;
        const double *__restrict threshold = run.threshold;
        int64_t *__restrict free_e = s.free_e;
        int64_t fired_e = 0, fired_i = 0;
        for (int64_t j = 0; j < n; ++j) {
            const double dv = ge[j] * (0.0 - v[j]) + gi[j] * (e.inhibition - v[j]) + (e.rest - v[j]);
            const bool moves = !e.hold || t >= free_e[j];
            const double now = moves ? v[j] + dv * e.leak : v[j];
            v[j] = now;
            ge[j] *= e.keep_e;
            gi[j] *= e.keep_i;
            theta[j] *= theta_keep;
            post[j] *= net.keep_post;
            post2[j] *= net.keep_triplet;
            fired_e += (now > threshold[j] + live * theta[j]) & (t >= free_e[j]);
        }
        double *__restrict v_i = s.v_i, *__restrict ge_i = s.ge_i;
        int64_t *__restrict free_i = s.free_i;
        for (int64_t j = 0; j < n; ++j) {
            const double dv = ge_i[j] * (0.0 - v_i[j]) + (i.rest - v_i[j]);
            const bool moves = !i.hold || t >= free_i[j];
            const double now = moves ? v_i[j] + dv * i.leak : v_i[j];
            v_i[j] = now;
            ge_i[j] *= i.keep_e;
            fired_i += (now > net.threshold_i) & (t >= free_i[j]);
        }
        for (int64_t d = 0; d <= past; ++d) {
            const int32_t *p = run.spikes + run.offset[past + k - d], *end = run.spikes + run.offset[past + k - d + 1];
            for (; p != end; ++p) arrive(net, s, run, *p, d, t);
        }
        if (fired_e)
            for (int64_t j = 0; j < n; ++j) {
                if (!(v[j] > threshold[j] + live * theta[j] && t >= free_e[j])) continue;
                if (run.learn) learn_post(net, s, run, j, t);
                post[j] = net.nearest ? 1.0 : post[j] + 1.0;
                post2[j] = net.nearest ? 1.0 : post2[j] + 1.0;
                s.ring_ei[(t + net.delay_ei[j]) % net.slots_ei * n + j] += net.w_ei;
                if (k < run.window) ++run.count_e[j];
                if (run.fired < run.capacity) {
                    run.raster[2 * run.fired] = int32_t(k);
                    run.raster[2 * run.fired + 1] = int32_t(j);
                }
                ++run.fired;
                // The reset comes last in a step, but nothing between here and there reads what it sets.
                v[j] = e.reset;
                if (run.adapt) theta[j] += net.theta_plus;
                free_e[j] = t + e.refractory;
            }
        if (fired_i)
            for (int64_t j = 0; j < n; ++j) {
                if (!(v_i[j] > net.threshold_i && t >= free_i[j])) continue;
                for (int64_t to = 0; to < n; ++to) {
                    const int64_t delay = net.delay_ie[j * n + to];
                    if (delay >= 0) s.ring_ie[(t + delay) % net.slots_ie * n + to] += net.w_ie;
                }
                if (k < run.window) ++run.count_i[j];
                if (run.fired < run.capacity) {
                    run.raster[2 * run.fired] = int32_t(k);
                    run.raster[2 * run.fired + 1] = int32_t(n + j);
                }
                ++run.fired;
                v_i[j] = i.reset;
                free_i[j] = t + i.refractory;
            }
        double *__restrict due_ei = s.ring_ei + t % net.slots_ei * n;
        double *__restrict due_ie = s.ring_ie + t % net.slots_ie * n;
        for (int64_t j = 0; j < n; ++j) {
            ge_i[j] += due_ei[j];
            gi[j] += due_ie[j];
            due_ei[j] = due_ie[j] = 0;
        }
    }
    s.step += run.steps;
}

}  // extern "C"
