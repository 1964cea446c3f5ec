#include "kernels/gemm.h"

#include <cblas.h>

namespace tessera {
namespace {

void use_calling_thread() {
  static const bool done = (openblas_set_num_threads(1), true);
  (void)done;
}

}  // namespace

void gemm(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t c_stride, float keep, float scale) {
  use_calling_thread();
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans, b.transposed ? CblasTrans : CblasNoTrans,
              static_cast<blasint>(m), static_cast<blasint>(n), static_cast<blasint>(k), scale, a.data,
              static_cast<blasint>(a.stride), b.data, static_cast<blasint>(b.stride), keep, c,
              static_cast<blasint>(c_stride));
}

void gram(int64_t n, int64_t k, const float* a, int64_t a_stride, float* c, float keep, float scale) {
  use_calling_thread();
  cblas_ssyrk(CblasRowMajor, CblasLower, CblasNoTrans, static_cast<blasint>(n), static_cast<blasint>(k), scale, a,
              static_cast<blasint>(a_stride), keep, c, static_cast<blasint>(n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) c[j * n + i] = c[i * n + j];
}

}  // namespace tessera
