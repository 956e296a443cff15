enum { LANES = 8 };

/* Channels that are done at once. */
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* Those at an address, which need not be aligned. */
static inline Lanes *lanes(const float *at) {
    return (Lanes *)at;
}
