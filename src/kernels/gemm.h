// Single-precision matrix products by OpenBLAS, each on the calling thread: callers share independent products out over
// threads, which beats splitting one when a product has some hundred rows.
#pragma once
#include <cstdint>

namespace tessera {

// A row-major matrix, `stride` elements from one row to the next; `transposed` reads it the other way round.
struct Matrix {
  const float* data;
  int64_t stride;
  bool transposed = false;
};

// c[m, n] = scale a b + keep c, with a [m, k] and b [k, n] after transposition. keep = 0 never reads c.
void gemm(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t c_stride, float keep = 0.0f,
          float scale = 1.0f);

}  // namespace tessera
