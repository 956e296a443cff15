/* Some planes of a plane sweep and their gradient, voxel by voxel: native.py compiles and calls this.

   Slab in streaming.py says what is computed. A line of pixels is projected onto all planes, one after the other,
   for what the sources show there lies close together; then the channels of each voxel go by in registers.
   Nothing but the result is written. */

#include <stddef.h>
#include <stdint.h>

#include "lanes.h"

enum { CHUNK = 64 };

typedef struct {
    int64_t sources, channels;   /* V - 1, C: a multiple of LANES */
    int64_t H, W;                /* of the feature maps, without their border of zeros */
    int64_t n, h, w;             /* of the planes */
    int64_t strides[3];          /* of nearness, in floats; 0 where all have the same */
    float closest;               /* what is not farther in front of a source is behind it */
    const float *table;          /* (V (H + 2) (W + 2), C) */
    const int32_t *reference;    /* (h, w): rows of the table */
    const float *far, *near;     /* (V - 1, 3, h, w) and (V - 1, 3) */
    const float *nearness;       /* (n, h, w) */
} Sweep;

/* Where a source sees some pixels of a line: the upper left of four neighbours, as a row of the table, and the
   weights of all four. */
typedef struct {
    int32_t corner[CHUNK];
    float weight[4][CHUNK];
} Line;

/* What is done at pixel k of these lines; reference is where its row of the table begins. */
typedef void Work(const Sweep *, const Line *, int k, int64_t reference, const float *from, float *to);

static inline float within(float x, float last) {
    x = x > 0 ? x : 0; /* not a number, too */
    return x < last ? x : last;
}

/* Project count pixels of the reference, from pixel i on. */
static void project(const Sweep *sweep, int64_t s, int64_t i, int count, const float *nearness, Line *line) {
    const int64_t pixels = sweep->h * sweep->w;
    const float *far_x = sweep->far + 3 * s * pixels + i, *far_y = far_x + pixels, *far_z = far_y + pixels;
    const float *near = sweep->near + 3 * s, near_x = near[0], near_y = near[1], near_z = near[2];
    const int32_t W = sweep->W, H = sweep->H, first_row = (s + 1) * (H + 2);
    const float closest = sweep->closest;
    for (int k = 0; k < count; k++) {
        const float depth = far_z[k] + near_z * nearness[k];
        const float z = depth > closest ? depth : 0; /* sends what lies behind to infinity */
        const float x = within((far_x[k] + near_x * nearness[k]) / z, W + 1);
        const float y = within((far_y[k] + near_y * nearness[k]) / z, H + 1);
        int32_t left = x, top = y;
        left = left < W ? left : W;
        top = top < H ? top : H;
        line->corner[k] = (first_row + top) * (W + 2) + left;
        const float right = x - left, bottom = y - top;
        line->weight[0][k] = (1 - right) * (1 - bottom);
        line->weight[1][k] = right * (1 - bottom);
        line->weight[2][k] = (1 - right) * bottom;
        line->weight[3][k] = right * bottom;
    }
}

/* One of four neighbours, the next ones being so many floats apart. */
static inline Lanes *neighbour(const float *corner, int tap, int64_t right, int64_t down) {
    return lanes(corner + (tap & 1) * right + (tap >> 1) * down);
}

/* How some channels of a source, from this corner on, differ from the reference's. */
static inline Lanes deviation(const float *corner, int64_t right, int64_t down, const Line *line, int k,
                              Lanes reference) {
    Lanes sum = -reference;
    for (int tap = 0; tap < 4; tap++) sum += line->weight[tap][k] * *neighbour(corner, tap, right, down);
    return sum;
}

static void spread_voxel(const Sweep *sweep, const Line *lines, int k, int64_t reference, const float *from,
                         float *to) {
    (void)from;
    const int64_t C = sweep->channels, down = (sweep->W + 2) * C;
    const float share = 1.0f / (sweep->sources + 1);
    for (int64_t c = 0; c < C; c += LANES) {
        const float *table = sweep->table + c;
        const Lanes own = *lanes(table + reference);
        Lanes total = {0}, squares = {0};
        for (int64_t s = 0; s < sweep->sources; s++) {
            const Lanes one = deviation(table + lines[s].corner[k] * C, C, down, lines + s, k, own);
            total += one;
            squares += one * one;
        }
        *lanes(to + c) = squares - share * total * total;
    }
}

static void gradient_voxel(const Sweep *sweep, const Line *lines, int k, int64_t reference, const float *from,
                           float *to) {
    const int64_t C = sweep->channels, down = (sweep->W + 2) * C;
    const float share = 1.0f / (sweep->sources + 1);
    for (int64_t c = 0; c < C; c += LANES) {
        const float *table = sweep->table + c;
        const Lanes own = *lanes(table + reference), gradient = *lanes(from + c);
        Lanes mean = {0};
        for (int64_t s = 0; s < sweep->sources; s++)
            mean += share * deviation(table + lines[s].corner[k] * C, C, down, lines + s, k, own);
        for (int64_t s = 0; s < sweep->sources; s++) {
            const int64_t corner = lines[s].corner[k] * C;
            const Lanes one = gradient * (deviation(table + corner, C, down, lines + s, k, own) - mean);
            for (int tap = 0; tap < 4; tap++)
                *neighbour(to + c + corner, tap, C, down) += lines[s].weight[tap][k] * one;
        }
        *lanes(to + c + reference) -= gradient * mean;
    }
}

/* Work at count pixels of a line, from pixel i on. */
static inline void chunk(const Sweep *sweep, int64_t i, int count, const float *nearness, Work *work,
                         const float *from, int64_t from_step, float *to, int64_t to_step) {
    Line lines[sweep->sources];
    for (int64_t s = 0; s < sweep->sources; s++) project(sweep, s, i, count, nearness, lines + s);
    for (int k = 0; k < count; k++, from += from_step, to += to_step)
        work(sweep, lines, k, sweep->reference[i + k] * sweep->channels, from, to);
}

/* Work at the voxels of some of the n h lines; from and to move on by so many floats with each voxel. */
static inline void sweep_lines(const Sweep *sweep, int64_t first, int64_t last, Work *work,
                               const float *from, int64_t from_step, float *to, int64_t to_step) {
    const int64_t w = sweep->w, *strides = sweep->strides;
    float nearness[CHUNK];
    for (int64_t line = first; line < last; line++) {
        const int64_t plane = line % sweep->n, y = line / sweep->n; /* all planes of a line: see above */
        for (int64_t x = 0; x < w; x += CHUNK) {
            const int64_t pixel = y * w + x, voxel = plane * sweep->h * w + pixel;
            const int count = w - x < CHUNK ? (int)(w - x) : CHUNK;
            for (int k = 0; k < count; k++)
                nearness[k] = sweep->nearness[plane * strides[0] + y * strides[1] + (x + k) * strides[2]];
            chunk(sweep, pixel, count, nearness, work, from + voxel * from_step, from_step,
                  to + voxel * to_step, to_step);
        }
    }
}

/* V times the variance at each voxel of these lines, (n, h, w, C). */
void spread(const Sweep *sweep, int64_t first, int64_t last, float *spread) {
    sweep_lines(sweep, first, last, spread_voxel, sweep->table, 0, spread, sweep->channels);
}

/* Adds half of what the gradient of that, (n, h, w, C), makes of the table's. */
void gradient(const Sweep *sweep, int64_t first, int64_t last, const float *gradient, float *of_table) {
    sweep_lines(sweep, first, last, gradient_voxel, gradient, sweep->channels, of_table, 0);
}
