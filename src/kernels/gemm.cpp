#include "kernels/gemm.h"

#include <cblas.h>

#include <cstdlib>

namespace tessera {
namespace {

// OpenBLAS takes its kernels by the CPU's model number, and for one newer than itself those of 2004: a fifth of the
// speed. So the instructions decide, before its own constructor (priority 101) asks. OPENBLAS_CORETYPE still wins.
#if defined(__x86_64__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wprio-ctor-dtor"
__attribute__((constructor(100))) void choose_kernels() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
    setenv("OPENBLAS_CORETYPE", "SkylakeX", /*overwrite=*/0);
  } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    setenv("OPENBLAS_CORETYPE", "Haswell", /*overwrite=*/0);
  }
}
#pragma GCC diagnostic pop
#endif

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
