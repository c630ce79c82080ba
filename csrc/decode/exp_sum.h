/* The sum of a softmax, in C that compilers turn into vectors: libm's exp, called for each of a
 * thousand classes, took most of the time of a classifier's decoding. Included by _fastpath.pyx. */
#ifndef VISIONRT_EXP_SUM_H
#define VISIONRT_EXP_SUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* exp(x) for x at most 0, to a relative error of 1e-11: 2^n * exp(r) with |r| <= ln 2 / 2, and the
 * Taylor series of exp(r) to r^9. exp(0) is 1; below -708 it is 3e-308, which is no denormal
 * number. NaN stays NaN. */
static inline double visionrt_exp(double x) {
  const double shift = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to whole numbers */
  double shifted, n, r, sum, power;
  uint64_t bits;
  x = x < -708.0 ? -708.0 : x;
  shifted = x * 1.4426950408889634 + shift;
  n = shifted - shift;
  r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
  sum = 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 1023u) << 52; /* the low bits of `shifted` are n */
  memcpy(&power, &bits, sizeof power);
  return sum * power;
}

/* The sum of exp(values[i] - peak); 1 for a value that is the peak, infinite ones included. */
static inline double visionrt_exp_sum(const float* values, size_t count, double peak) {
  enum { kBlock = 64 };
  double terms[kBlock], lanes[4] = {0};
  size_t first, l;
  for (first = 0; first < count; first += kBlock) {
    const size_t size = count - first < kBlock ? count - first : kBlock;
    for (l = 0; l < size; ++l) {
      const double value = values[first + l];
      terms[l] = value == peak ? 0.0 : value - peak;
    }
    for (l = size; l < kBlock; ++l) terms[l] = -708.0;
    for (l = 0; l < kBlock; ++l) terms[l] = visionrt_exp(terms[l]);
    for (l = 0; l < kBlock; ++l) lanes[l % 4] += terms[l];
  }
  return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

#endif
