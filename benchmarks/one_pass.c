/* Soft-target KL of rows of logits and its gradient in place, in as few passes as can be.

   z becomes factor * (softmax(z) - softmax(t)); out is the divergence of each row. A row of both
   stays in the cache from the first pass to the last. Partial sums are short, so float is enough. */
#include <math.h>

#define PART 1024

void kl_rows(float *z, const float *t, double *out, long rows, long words, float factor, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long row = 0; row < rows; row++) {
        float *ours = z + row * words;
        const float *theirs = t + row * words;
        float most = -INFINITY, most_theirs = -INFINITY;
#pragma omp simd reduction(max : most, most_theirs)
        for (long i = 0; i < words; i++) {
            most = fmaxf(most, ours[i]);
            most_theirs = fmaxf(most_theirs, theirs[i]);
        }
        double sum = 0, sum_theirs = 0, dot = 0;
        for (long from = 0; from < words; from += PART) {
            long to = from + PART < words ? from + PART : words;
            float part = 0, part_theirs = 0, part_dot = 0;
#pragma omp simd reduction(+ : part, part_theirs, part_dot)
            for (long i = from; i < to; i++) {
                float a = ours[i] - most, b = theirs[i] - most_theirs, p = expf(b);
                part += expf(a);
                part_theirs += p;
                part_dot += p * (b - a);
            }
            sum += part;
            sum_theirs += part_theirs;
            dot += part_dot;
        }
        out[row] = dot / sum_theirs + log(sum) - log(sum_theirs);
        float scale = factor / (float)sum, scale_theirs = factor / (float)sum_theirs;
#pragma omp simd
        for (long i = 0; i < words; i++)
            ours[i] = expf(ours[i] - most) * scale - expf(theirs[i] - most_theirs) * scale_theirs;
    }
}
