/* A transposed 3 x 3 x 3 convolution that doubles the size, line by line: native.py compiles and calls this.

   In each direction, voxel 2 j of the result sees voxel j through tap 1; voxel 2 j + 1 sees j through tap 2, and
   j + 1, where there is one, through tap 0. */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "lanes.h"

enum { AT_ONCE = 6 }; /* with two sums and three taps each, all registers are in use */

typedef struct {
    int64_t channels, result_channels;   /* C; C1, a multiple of LANES */
    int64_t D, h, w;                     /* of what is convolved */
    int64_t strides[4];                  /* of its channels, planes, rows and columns, in floats */
    int64_t start;                       /* the first plane of the result that is wanted */
    const float *x, *kernel;             /* the latter (3, 3, 3, C, C1) */
    float *result;                       /* (n, 2 h, 2 w, C1) */
} Upsampling;

/* What count voxels of a line add to LANES channels of the two voxels that each becomes; one more may follow. */
static inline void add_voxels(const Upsampling *up, const float *x, const float *kernel, int count, bool more,
                              float *to) {
    const int64_t C = up->channels, C1 = up->result_channels, next = up->strides[3];
    Lanes even[AT_ONCE], odd[AT_ONCE];
    for (int i = 0; i < count; i++) {
        even[i] = *lanes(to + 2 * i * C1);
        odd[i] = *lanes(to + (2 * i + 1) * C1);
    }
    for (int64_t c = 0; c < C; c++, kernel += C1, x += up->strides[0]) {
        const Lanes before = *lanes(kernel), same = *lanes(kernel + C * C1), after = *lanes(kernel + 2 * C * C1);
        for (int i = 0; i < count; i++) {
            even[i] += same * x[i * next];
            odd[i] += after * x[i * next];
            if (i + 1 < count || more) odd[i] += before * x[(i + 1) * next];
        }
    }
    for (int i = 0; i < count; i++) {
        *lanes(to + 2 * i * C1) = even[i];
        *lanes(to + (2 * i + 1) * C1) = odd[i];
    }
}

/* The same of a whole line, to all channels. */
static void add_line(const Upsampling *up, const float *x, const float *kernel, float *to) {
    const int64_t C1 = up->result_channels, w = up->w, next = up->strides[3];
    for (int64_t c = 0; c < C1; c += LANES, kernel += LANES, to += LANES) {
        int64_t i = 0;
        for (; i + AT_ONCE < w; i += AT_ONCE)
            add_voxels(up, x + i * next, kernel, AT_ONCE, true, to + 2 * i * C1);
        for (; i < w; i++) add_voxels(up, x + i * next, kernel, 1, i + 1 < w, to + 2 * i * C1);
    }
}

/* Some of the result's lines, counted from its first plane on. */
void upsample(const Upsampling *up, int64_t first, int64_t last) {
    const int64_t size = 2 * up->w * up->result_channels, tap = up->channels * up->result_channels;
    for (int64_t line = first; line < last; line++) {
        const int64_t plane = up->start + line / (2 * up->h), row = line % (2 * up->h);
        float *to = memset(up->result + line * size, 0, size * sizeof(float));
        for (int64_t z = plane / 2; z <= (plane + 1) / 2 && z < up->D; z++)
            for (int64_t y = row / 2; y <= (row + 1) / 2 && y < up->h; y++) {
                const int64_t taps = 9 * (plane + 1 - 2 * z) + 3 * (row + 1 - 2 * y);
                add_line(up, up->x + z * up->strides[1] + y * up->strides[2], up->kernel + taps * tap, to);
            }
    }
}
