/* Parts of a training step that oneDNN or ATen compute slowly in bfloat16 on a CPU: gradients of
 * depthwise convolutions, and batch normalisation with ReLU6. Arrays are dense, channels last;
 * bfloat16 values come as uint16_t. Every function returns nothing and cannot fail. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define BLOCK_ROWS 64

typedef float floats __attribute__((vector_size(LANES * 4)));
typedef float floats_anywhere __attribute__((vector_size(LANES * 4), aligned(4)));
typedef uint32_t words __attribute__((vector_size(LANES * 4)));
typedef uint16_t halves __attribute__((vector_size(LANES * 2), aligned(2)));

static inline floats load(const uint16_t *from) {
    return (floats)(__builtin_convertvector(*(const halves *)from, words) << 16);
}

static inline floats at(const float *from) { return *(const floats_anywhere *)from; }

static inline void store(uint16_t *to, floats numbers) { /* rounds to the nearest even */
    words bits = (words)numbers;
    *(halves *)to = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, halves);
}

/* The gradient of the weights, float (kernel, kernel, channels), of one image and 16 channels. */
#define WEIGHT_GRADIENT(NAME, KERNEL)                                                              \
    static void NAME(const uint16_t *image, const uint16_t *gradient, float *out, long rows,       \
                     long columns, long out_rows, long out_columns, long channels, long stride,    \
                     long padding) {                                                               \
        floats sums[KERNEL][KERNEL];                                                               \
        memset(sums, 0, sizeof sums);                                                              \
        for (long y = 0; y < out_rows; y++)                                                        \
            for (long x = 0; x < out_columns; x++) {                                               \
                floats here = load(gradient + (y * out_columns + x) * channels);                   \
                long top = y * stride - padding, left = x * stride - padding;                      \
                if (top >= 0 && left >= 0 && top + KERNEL <= rows && left + KERNEL <= columns) {   \
                    const uint16_t *corner = image + (top * columns + left) * channels;            \
                    _Pragma("GCC unroll 8") for (long i = 0; i < KERNEL; i++)                      \
                        _Pragma("GCC unroll 8") for (long j = 0; j < KERNEL; j++)                  \
                            sums[i][j] += here * load(corner + (i * columns + j) * channels);      \
                } else {                                                                           \
                    _Pragma("GCC unroll 8") for (long i = 0; i < KERNEL; i++)                      \
                        _Pragma("GCC unroll 8") for (long j = 0; j < KERNEL; j++)                  \
                            if (top + i >= 0 && top + i < rows && left + j >= 0 &&                 \
                                left + j < columns)                                                \
                                sums[i][j] += here * load(image + ((top + i) * columns + left + j) \
                                                                      * channels);                 \
                }                                                                                  \
            }                                                                                      \
        for (long i = 0; i < KERNEL; i++)                                                          \
            for (long j = 0; j < KERNEL; j++)                                                      \
                *(floats_anywhere *)(out + (i * KERNEL + j) * channels) = sums[i][j];                       \
    }

WEIGHT_GRADIENT(weight_gradient_3, 3)
WEIGHT_GRADIENT(weight_gradient_5, 5)

/* Gradient of the weights of a depthwise convolution. image (images, rows, columns, channels) and
 * gradient (images, out_rows, out_columns, channels) bfloat16; out float (images, kernel, kernel,
 * channels), to be summed over images, 64-byte aligned. kernel 3 or 5, channels a multiple of 16. */
void depthwise_weight_gradient(const uint16_t *image, const uint16_t *gradient, float *out,
                               long images, long rows, long columns, long out_rows,
                               long out_columns, long channels, long kernel, long stride,
                               long padding) {
#pragma omp parallel for collapse(2) schedule(static)
    for (long n = 0; n < images; n++)
        for (long c = 0; c < channels; c += LANES)
            (kernel == 3 ? weight_gradient_3 : weight_gradient_5)(
                image + n * rows * columns * channels + c,
                gradient + n * out_rows * out_columns * channels + c,
                out + n * kernel * kernel * channels + c, rows, columns, out_rows, out_columns,
                channels, stride, padding);
}

static inline void weighted_sums(const uint16_t **from, const float **by, long taps, uint16_t *to,
                                 long channels) {
    for (long c = 0; c < channels; c += LANES) {
        floats sum = {0};
        for (long tap = 0; tap < taps; tap++) sum += load(from[tap] + c) * at(by[tap] + c);
        store(to + c, sum);
    }
}

/* A depthwise convolution: weight float (kernel, kernel, channels), the rest as above; out bfloat16
 * (images, out_rows, out_columns, channels). */
void depthwise(const uint16_t *image, const float *weight, uint16_t *out, long images, long rows,
               long columns, long out_rows, long out_columns, long channels, long kernel,
               long stride, long padding) {
#pragma omp parallel for collapse(2) schedule(static)
    for (long n = 0; n < images; n++)
        for (long y = 0; y < out_rows; y++)
            for (long x = 0; x < out_columns; x++) {
                const uint16_t *from[25];
                const float *by[25];
                long taps = 0;
                for (long i = 0; i < kernel; i++)
                    for (long j = 0; j < kernel; j++) {
                        long row = y * stride + i - padding, column = x * stride + j - padding;
                        if (row < 0 || row >= rows || column < 0 || column >= columns) continue;
                        from[taps] = image + ((n * rows + row) * columns + column) * channels;
                        by[taps++] = weight + (i * kernel + j) * channels;
                    }
                weighted_sums(from, by, taps, out + ((n * out_rows + y) * out_columns + x) * channels,
                              channels);
            }
}

/* Gradient of the image of a depthwise convolution: weight float (kernel, kernel, channels), the
 * rest as above; out bfloat16 (images, rows, columns, channels). */
void depthwise_image_gradient(const float *weight, const uint16_t *gradient, uint16_t *out,
                              long images, long rows, long columns, long out_rows,
                              long out_columns, long channels, long kernel, long stride,
                              long padding) {
#pragma omp parallel for collapse(2) schedule(static)
    for (long n = 0; n < images; n++)
        for (long y = 0; y < rows; y++)
            for (long x = 0; x < columns; x++) {
                const uint16_t *from[25];
                const float *by[25];
                long taps = 0;
                for (long i = (y + padding) % stride; i < kernel; i += stride)
                    for (long j = (x + padding) % stride; j < kernel; j += stride) {
                        long row = (y + padding - i) / stride, column = (x + padding - j) / stride;
                        if (y + padding < i || x + padding < j || row >= out_rows ||
                            column >= out_columns)
                            continue;
                        from[taps] =
                            gradient + ((n * out_rows + row) * out_columns + column) * channels;
                        by[taps++] = weight + (i * kernel + j) * channels;
                    }
                weighted_sums(from, by, taps, out + ((n * rows + y) * columns + x) * channels,
                              channels);
            }
}

/* The rest works on arrays of shape (rows, width), width a multiple of 16; scale, shift and the like
 * are float (width), totals double (2, width). */

static inline floats chosen(words mask, floats yes, floats no) {
    return (floats)((mask & (words)yes) | (~mask & (words)no));
}

static inline floats clamped(floats numbers, float low, float high) {
    floats zero = {0};
    numbers = chosen((words)(numbers < low), zero + low, numbers);
    return chosen((words)(numbers > high), zero + high, numbers);
}

/* The gradient where the clamp lets it through, else 0. */
static inline floats passed(floats scaled, const uint16_t *gradient, float low, float high) {
    return (floats)((words)load(gradient) & (words)((scaled > low) & (scaled < high)));
}

/* Sums over rows of a first and a second term, each an expression of row and i. */
#define SUM_ROWS(FIRST, SECOND)                                                                    \
    memset(totals, 0, sizeof(double) * 2 * width);                                                 \
    _Pragma("omp parallel") {                                                                      \
        double *mine = calloc(2 * width, sizeof(double));                                          \
        float *sums = malloc(sizeof(float) * 2 * width);                                           \
        _Pragma("omp for schedule(static)") for (long block = 0; block < rows;                     \
                                                 block += BLOCK_ROWS) {                            \
            memset(sums, 0, sizeof(float) * 2 * width);                                            \
            long end = block + BLOCK_ROWS < rows ? block + BLOCK_ROWS : rows;                      \
            for (long row = block; row < end; row++)                                               \
                for (long i = 0; i < width; i += LANES) {                                          \
                    floats value = load(values + row * width + i), first = FIRST;                  \
                    *(floats_anywhere *)(sums + i) += first;                                       \
                    *(floats_anywhere *)(sums + width + i) += SECOND;                              \
                }                                                                                  \
            for (long i = 0; i < 2 * width; i++) mine[i] += sums[i];                               \
        }                                                                                          \
        _Pragma("omp critical") for (long i = 0; i < 2 * width; i++) totals[i] += mine[i];         \
        free(mine);                                                                                \
        free(sums);                                                                                \
    }

/* Sums of the values and of their squares. */
void column_sums(const uint16_t *values, double *totals, long rows, long width) {
    SUM_ROWS(value, value * value)
}

/* Sums of the gradient that the clamp lets through and of its product with the values. */
void gradient_sums(const uint16_t *values, const uint16_t *gradient, const float *scale,
                   const float *shift, float low, float high, double *totals, long rows,
                   long width) {
    SUM_ROWS(passed(value * at(scale + i) + at(shift + i), gradient + row * width + i, low, high),
             first * value)
}

/* out = values * scale + shift, cut to low..high. */
void scale_and_clamp(const uint16_t *values, const float *scale, const float *shift, float low,
                     float high, uint16_t *out, long rows, long width) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < width; i += LANES) {
            floats value = load(values + row * width + i);
            store(out + row * width + i,
                  clamped(value * at(scale + i) + at(shift + i), low, high));
        }
}

/* out = the gradient that the clamp lets through * scale + values * slope + offset. */
void normalised_gradient(const uint16_t *values, const uint16_t *gradient, const float *scale,
                         const float *shift, const float *slope, const float *offset, float low,
                         float high, uint16_t *out, long rows, long width) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < width; i += LANES) {
            floats value = load(values + row * width + i), by = at(scale + i);
            floats through =
                passed(value * by + at(shift + i), gradient + row * width + i, low, high);
            store(out + row * width + i, through * by + value * at(slope + i) + at(offset + i));
        }
}
