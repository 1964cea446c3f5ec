#include "train/products.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "kernels/amx_tiles.h"
#include "kernels/elementwise.h"
#include "train/tasks.h"

// Of the MKL inside LibTorch, which has no header: null where LibTorch has none.
extern "C" __attribute__((weak)) void cblas_gemm_bf16bf16f32(int layout, int transpose_a, int transpose_b, int m, int n,
                                                             int k, float alpha, const uint16_t* a, int a_stride,
                                                             const uint16_t* b, int b_stride, float beta, float* c,
                                                             int c_stride);
extern "C" __attribute__((weak)) int MKL_Set_Num_Threads_Local(int threads);

namespace tessera {
namespace {

// Of scratch, for factors that are rounded on the way; callers have the slots before them.
constexpr size_t kLeft = 8, kRight = 9;

uint16_t* bits(at::BFloat16* data) { return reinterpret_cast<uint16_t*>(data); }
const uint16_t* bits(const at::BFloat16* data) { return reinterpret_cast<const uint16_t*>(data); }

void multiply_bf16(int64_t m, int64_t n, int64_t k, const Factor& a, const Factor& b, float* c, int64_t c_stride,
                   float keep, float scale) {
  constexpr int kRowMajor = 101, kAsItIs = 111, kTransposed = 112;  // CBLAS
  const int threads = MKL_Set_Num_Threads_Local(1);
  cblas_gemm_bf16bf16f32(kRowMajor, a.transposed ? kTransposed : kAsItIs, b.transposed ? kTransposed : kAsItIs,
                         static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), scale, bits(a.bf16),
                         static_cast<int>(a.stride), bits(b.bf16), static_cast<int>(b.stride), keep, c,
                         static_cast<int>(c_stride));
  MKL_Set_Num_Threads_Local(threads);
}

// Small products are right. These first calls also let MKL find its kernels on one thread (train/blocks.cpp).
bool mkl_multiplies_bf16() {
  if (!cblas_gemm_bf16bf16f32 || !MKL_Set_Num_Threads_Local || !cpu_has_tiles(TileArithmetic::kBF16)) return false;
  constexpr int64_t kSide = 48;
  const at::Tensor a = at::arange(kSide * kSide, at::kFloat).remainder(13).sub(6).view({kSide, kSide}),
                   b = at::arange(kSide * kSide, at::kFloat).remainder(7).sub(3).view({kSide, kSide}) / 4;
  const FactorTensor left(a, true), right(b, true);
  for (const bool a_turned : {false, true}) {
    for (const bool b_turned : {false, true}) {
      for (const float keep : {0.0f, 1.0f}) {
        const at::Tensor c = at::ones({kSide, kSide});
        multiply_bf16(kSide, kSide, kSide, left.from(0, kSide, a_turned), right.from(0, kSide, b_turned),
                      c.mutable_data_ptr<float>(), kSide, keep, 1);
        const at::Tensor expected = at::mm(a_turned ? a.t() : a, b_turned ? b.t() : b) + keep;
        if (!at::equal(c, expected)) return false;  // small multiples of 1/4: exact
      }
    }
  }
  return true;
}

}  // namespace

bool multiplies_bf16(at::ScalarType precision) {
  if (precision != at::kBFloat16) return false;
  static const bool can = mkl_multiplies_bf16();
  return can;
}

Factor FactorTensor::from(int64_t element, int64_t stride, bool transposed) const {
  if (tensor_.scalar_type() == at::kFloat) return {tensor_.const_data_ptr<float>() + element, stride, transposed};
  return {tensor_.const_data_ptr<at::BFloat16>() + element, stride, transposed};
}

Factor FactorTensor::gathered(const int32_t* rows, int64_t count, int64_t width, size_t slot) const {
  const size_t row_bytes = static_cast<size_t>(width) * tensor_.element_size();
  const std::byte* data = static_cast<const std::byte*>(tensor_.const_data_ptr());
  float* to = scratch(slot, count * width);
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(reinterpret_cast<std::byte*>(to) + static_cast<size_t>(i) * row_bytes,
                data + static_cast<size_t>(rows[i]) * row_bytes, row_bytes);
  if (tensor_.scalar_type() == at::kFloat) return {to, width};
  return {reinterpret_cast<const at::BFloat16*>(to), width};
}

Factor rounded(bool in_bf16, const Factor& factor, int64_t rows, int64_t columns, size_t slot) {
  if (!in_bf16 || factor.bf16) return factor;
  if (factor.transposed) std::swap(rows, columns);  // as it lies in memory
  at::BFloat16* to = reinterpret_cast<at::BFloat16*>(scratch(slot, (rows * columns + 1) / 2));
  for (int64_t r = 0; r < rows; ++r) round_to_bf16(factor.f32 + r * factor.stride, columns, bits(to + r * columns));
  return {to, std::max<int64_t>(columns, 1), factor.transposed};
}

void round_in_place(float* row, int64_t columns) { round_to_bf16(row, columns, reinterpret_cast<uint16_t*>(row)); }

Factor rounded_in_place(const float* rows, int64_t columns, int64_t first_column) {
  return {reinterpret_cast<const at::BFloat16*>(rows) + first_column, 2 * columns};
}

void product(bool in_bf16, int64_t m, int64_t n, int64_t k, const Factor& a, const Factor& b, float* c,
             int64_t c_stride, float keep, float scale) {
  if (m == 0 || n == 0) return;
  if (in_bf16) {
    multiply_bf16(m, n, k, rounded(true, a, m, k, kLeft), rounded(true, b, k, n, kRight), c, c_stride, keep, scale);
  } else {
    TESSERA_CHECK(a.f32 && b.f32, "a bf16 factor in an f32 product");
    gemm(m, n, k, {a.f32, a.stride, a.transposed}, {b.f32, b.stride, b.transposed}, c, c_stride, keep, scale);
  }
}

}  // namespace tessera
