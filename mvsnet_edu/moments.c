/* What mean and variance of channels are made of, in one pass: native.py compiles and calls this. */

#include <stdint.h>

#include "lanes.h"

enum { RUN = 512 }; /* so many are added up in single precision */

/* Adds the sum of some voxels' values, and that of their squares, to (2, C); all taken from the first voxel's, lest
   they be large numbers that differ by little. */
void moments(const float *x, int64_t channels, int64_t first, int64_t last, double *sums) {
    for (int64_t c = 0; c < channels; c += LANES, sums += LANES) {
        const Lanes origin = *lanes(x + c);
        for (int64_t run = first; run < last; run += RUN) {
            Lanes total = {0}, squares = {0};
            for (int64_t voxel = run; voxel < run + RUN && voxel < last; voxel++) {
                const Lanes value = *lanes(x + voxel * channels + c) - origin;
                total += value;
                squares += value * value;
            }
            for (int k = 0; k < LANES; k++) {
                sums[k] += total[k];
                sums[channels + k] += squares[k];
            }
        }
    }
}
