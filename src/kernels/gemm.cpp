#include "kernels/gemm.h"

#include <cblas.h>

namespace tessera {

void gemm(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t c_stride, float keep, float scale) {
  static const bool one_thread = (openblas_set_num_threads(1), true);
  if (!one_thread || m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans, b.transposed ? CblasTrans : CblasNoTrans,
              static_cast<blasint>(m), static_cast<blasint>(n), static_cast<blasint>(k), scale, a.data,
              static_cast<blasint>(a.stride), b.data, static_cast<blasint>(b.stride), keep, c,
              static_cast<blasint>(c_stride));
}

}  // namespace tessera
