// The matrix products of a training step, each on the calling thread: in f32 by kernels/gemm.h; in bf16, on a CPU with
// AMX, of factors rounded to bf16 with sums in f32, which is what autocast multiplies, by MKL, which LibTorch brings.
#pragma once
#include "kernels/gemm.h"
#include "train/torch.h"

namespace tessera {

// Whether products of a model of this precision are of bf16 on this CPU. Without AMX it is slower than f32.
bool multiplies_bf16(at::ScalarType precision);

// A row-major matrix, as kernels/gemm.h's Matrix.
struct Factor {
  const float* f32 = nullptr;  // one of the two
  const at::BFloat16* bf16 = nullptr;
  int64_t stride = 0;
  bool transposed = false;
  Factor(const float* data, int64_t row_stride, bool reads_transposed = false)
      : f32(data), stride(row_stride), transposed(reads_transposed) {}
  Factor(const at::BFloat16* data, int64_t row_stride, bool reads_transposed = false)
      : bf16(data), stride(row_stride), transposed(reads_transposed) {}
  Factor turned() const {
    Factor other = *this;
    other.transposed = !transposed;
    return other;
  }
};

// A tensor as products take it; a copy where it has another precision.
inline at::Tensor as_multiplied(const at::Tensor& tensor, bool in_bf16) {
  return tensor.to(in_bf16 ? at::kBFloat16 : at::kFloat).contiguous();
}

class FactorTensor {
 public:
  FactorTensor(const at::Tensor& tensor, bool in_bf16) : tensor_(as_multiplied(tensor, in_bf16)) {}
  // The matrix that begins at that element, its rows `stride` elements apart.
  Factor from(int64_t element, int64_t stride, bool transposed = false) const;
  // The rows with these numbers, one after the other, in the calling thread's scratch(slot). Slots up to 7 are
  // callers'.
  Factor gathered(const int32_t* rows, int64_t count, int64_t width, size_t slot) const;

 private:
  at::Tensor tensor_;
};

// A factor [rows, columns], in bf16 products rounded into scratch(slot) where it is f32.
Factor rounded(bool in_bf16, const Factor& factor, int64_t rows, int64_t columns, size_t slot);

// A row of f32 numbers becomes bf16 in its own first half; rows that did are a factor, here from a column on.
void round_in_place(float* row, int64_t columns);
Factor rounded_in_place(const float* rows, int64_t columns, int64_t first_column = 0);

// kernels/gemm.h's product. `in_bf16`: f32 factors are rounded on the way; otherwise none may be bf16.
void product(bool in_bf16, int64_t m, int64_t n, int64_t k, const Factor& a, const Factor& b, float* c,
             int64_t c_stride, float keep = 0.0f, float scale = 1.0f);

}  // namespace tessera
