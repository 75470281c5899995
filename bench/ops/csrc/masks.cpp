// What a mask of dropout keeps, one byte an entry: see masks.py.

#include <algorithm>

#include "philox.h"

// Of `count` entries at each of `steps` time steps, [steps, count].
extern "C" void keep(uint8_t *to, int64_t steps, int64_t count, uint32_t key, uint32_t high, uint32_t lowest,
                     int threads) {
    const int64_t blocks = (count + V - 1) / V;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t first = block * V;
        const int lanes = int(std::min<int64_t>(V, count - first));
        Numbers four = {};
        for (int64_t t = 0; t < steps; t++) {
            if (t % 4 == 0) four = philox(places(first), uint32_t(t / 4) ^ high, key);
            const Words drawn = number(four, t);
            for (int lane = 0; lane < lanes; lane++) to[t * count + first + lane] = drawn[lane] >= lowest;
        }
    }
}
