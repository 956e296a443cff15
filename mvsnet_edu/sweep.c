/* Some planes of a plane sweep and their gradient, voxel by voxel: native.py compiles and calls this.

   Slab in streaming.py says what is computed. A line's voxels are projected first; then the channels of each go
   by, a BLOCK at a time, in registers. Nothing but the result is written. */

#include <stddef.h>
#include <stdint.h>

enum { BLOCK = 16, CHUNK = 64 };

typedef struct {
    int64_t sources, channels;   /* V - 1, C */
    int64_t H, W;                /* of the feature maps, without their border of zeros */
    int64_t h, w;                /* of the planes */
    int64_t strides[3];          /* of nearness, in floats; 0 where all have the same */
    float closest;               /* what is not farther in front of a source is behind it */
    const float *table;          /* (V (H + 2) (W + 2), C) */
    const int32_t *reference;    /* (h, w): rows of the table */
    const float *far, *near;     /* (V - 1, 3, h, w) and (V - 1, 3) */
    const float *nearness;       /* (n, h, w) */
} Sweep;

/* Where a source sees some pixels of a line: the upper left of four neighbours, as a row of the table, and the
   shares of the right and of the lower ones. */
typedef struct {
    int32_t corner[CHUNK];
    float right[CHUNK], bottom[CHUNK];
} Line;

/* The same of one voxel: where four rows of the table begin, and their weights. */
typedef struct {
    int64_t row[4];
    float weight[4];
} Taps;

/* What is done at a voxel; reference is where its row of the table begins. */
typedef void Work(const Sweep *, const Taps *, int64_t reference, const float *from, float *to);

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
        line->right[k] = x - left;
        line->bottom[k] = y - top;
    }
}

static inline Taps taps(const Sweep *sweep, const Line *line, int k) {
    const float right = line->right[k], bottom = line->bottom[k], left = 1 - right, top = 1 - bottom;
    const int64_t C = sweep->channels, corner = line->corner[k] * C, below = corner + (sweep->W + 2) * C;
    return (Taps){{corner, corner + C, below, below + C},
                  {left * top, right * top, left * bottom, right * bottom}};
}

/* How n channels of a source differ from the reference's. */
static inline void deviate(const float *table, const Taps *at, int64_t reference, int n, float *deviation) {
    const float *a = table + at->row[0], *b = table + at->row[1], *c = table + at->row[2];
    const float *d = table + at->row[3], *e = table + reference, *weight = at->weight;
    for (int k = 0; k < n; k++)
        deviation[k] = weight[0] * a[k] + weight[1] * b[k] + weight[2] * c[k] + weight[3] * d[k] - e[k];
}

static inline void spread_block(const float *table, int64_t sources, const Taps *at, int64_t reference, int n,
                                float *spread) {
    float total[BLOCK] = {0}, squares[BLOCK] = {0}, deviation[BLOCK];
    for (int64_t s = 0; s < sources; s++) {
        deviate(table, at + s, reference, n, deviation);
        for (int k = 0; k < n; k++) {
            total[k] += deviation[k];
            squares[k] += deviation[k] * deviation[k];
        }
    }
    const float share = 1.0f / (sources + 1);
    for (int k = 0; k < n; k++) spread[k] = squares[k] - share * total[k] * total[k];
}

static void spread_voxel(const Sweep *sweep, const Taps *at, int64_t reference, const float *from, float *to) {
    (void)from;
    int64_t c = 0, C = sweep->channels;
    for (; c + BLOCK <= C; c += BLOCK)
        spread_block(sweep->table + c, sweep->sources, at, reference, BLOCK, to + c);
    if (c < C) spread_block(sweep->table + c, sweep->sources, at, reference, (int)(C - c), to + c);
}

static inline void gradient_block(const float *table, int64_t sources, const Taps *at, int64_t reference,
                                  int n, const float *gradient, float *of_table) {
    float mean[BLOCK] = {0}, deviation[BLOCK];
    for (int64_t s = 0; s < sources; s++) {
        deviate(table, at + s, reference, n, deviation);
        for (int k = 0; k < n; k++) mean[k] += deviation[k];
    }
    for (int k = 0; k < n; k++) mean[k] /= sources + 1;
    for (int64_t s = 0; s < sources; s++) {
        deviate(table, at + s, reference, n, deviation);
        for (int k = 0; k < n; k++) deviation[k] = gradient[k] * (deviation[k] - mean[k]);
        for (int tap = 0; tap < 4; tap++)
            for (int k = 0; k < n; k++) of_table[at[s].row[tap] + k] += at[s].weight[tap] * deviation[k];
    }
    for (int k = 0; k < n; k++) of_table[reference + k] -= gradient[k] * mean[k];
}

static void gradient_voxel(const Sweep *sweep, const Taps *at, int64_t reference, const float *from, float *to) {
    int64_t c = 0, C = sweep->channels;
    for (; c + BLOCK <= C; c += BLOCK)
        gradient_block(sweep->table + c, sweep->sources, at, reference, BLOCK, from + c, to + c);
    if (c < C)
        gradient_block(sweep->table + c, sweep->sources, at, reference, (int)(C - c), from + c, to + c);
}

/* Work at count pixels of a line, from pixel i on. */
static inline void chunk(const Sweep *sweep, int64_t i, int count, const float *nearness, Work *work,
                         const float *from, int64_t from_step, float *to, int64_t to_step) {
    Line lines[sweep->sources];
    Taps at[sweep->sources];
    for (int64_t s = 0; s < sweep->sources; s++) project(sweep, s, i, count, nearness, lines + s);
    for (int k = 0; k < count; k++, from += from_step, to += to_step) {
        for (int64_t s = 0; s < sweep->sources; s++) at[s] = taps(sweep, lines + s, k);
        work(sweep, at, sweep->reference[i + k] * sweep->channels, from, to);
    }
}

/* Work at the voxels of some of the n h lines; from and to move on by so many floats with each voxel. */
static inline void sweep_lines(const Sweep *sweep, int64_t first, int64_t last, Work *work,
                               const float *from, int64_t from_step, float *to, int64_t to_step) {
    const int64_t w = sweep->w, *strides = sweep->strides;
    float nearness[CHUNK];
    for (int64_t line = first; line < last; line++) {
        const int64_t plane = line / sweep->h, y = line % sweep->h;
        for (int64_t x = 0; x < w; x += CHUNK) {
            const int count = w - x < CHUNK ? (int)(w - x) : CHUNK;
            for (int k = 0; k < count; k++)
                nearness[k] = sweep->nearness[plane * strides[0] + y * strides[1] + (x + k) * strides[2]];
            chunk(sweep, y * w + x, count, nearness, work, from + (line * w + x) * from_step, from_step,
                  to + (line * w + x) * to_step, to_step);
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
