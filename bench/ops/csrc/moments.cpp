// Mean and biased variance of each channel of a dense [B, H, W, C] tensor of ELEMENT: float, Bf16 or Fp16.

#include <algorithm>
#include <vector>

#include "lanes.h"

// Of x [rows, C].
extern "C" void moments(const ELEMENT *x, int64_t rows, int64_t C, float *mean, float *var, int threads) {
    constexpr int64_t BLOCK = 128;
    const int64_t blocks = (rows + BLOCK - 1) / BLOCK;
    std::vector<double> parts(threads * 2 * C);
    // Sums of differences from the first row: without it, a mean far from 0 would swamp the variance.
    std::vector<float> pivot(C + V);
    for (int64_t c = 0; c < C; c += V) store(&pivot[c], load(x + c, int(std::min<int64_t>(V, C - c))));
#pragma omp parallel num_threads(threads)
    {
        std::vector<double> total(2 * C);
        const auto add = [&](int64_t block, int64_t c, auto n) {
            const Floats from = load(&pivot[c]);
            Floats one = {}, two = {};
            const int64_t end = std::min(rows, (block + 1) * BLOCK);
            for (int64_t r = block * BLOCK; r < end; r++) {
                const Floats v = load(x + r * C + c, n) - from;
                one += v;
                two += v * v;
            }
            for (int l = 0; l < n; l++) total[c + l] += one[l], total[C + c + l] += two[l];
        };
#pragma omp for schedule(static)
        for (int64_t block = 0; block < blocks; block++) {
            int64_t c = 0;
            for (; c + V <= C; c += V) add(block, c, All());
            if (c < C) add(block, c, int(C - c));
        }
        std::copy(total.begin(), total.end(), parts.begin() + Team().me * 2 * C);
    }
    for (int64_t c = 0; c < C; c++) {
        double one = 0, two = 0;
        for (int64_t k = 0; k < threads; k++) one += parts[k * 2 * C + c], two += parts[(k * 2 + 1) * C + c];
        one /= double(rows);
        mean[c] = float(pivot[c] + one);
        // Not std::max, which would turn NaN into 0.
        const double v = two / double(rows) - one * one;
        var[c] = float(v < 0 ? 0 : v);
    }
}
