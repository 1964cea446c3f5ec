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
class FactorTensor {
 public:
  FactorTensor(const at::Tensor& tensor, bool in_bf16)
      : tensor_(tensor.to(in_bf16 ? at::kBFloat16 : at::kFloat).contiguous()) {}
  Factor from(int64_t element, int64_t stride, bool transposed = false) const;
  // The rows with these numbers, one after the other, in the calling thread's scratch(slot). Slots up to 7 are
  // callers'.
  Factor gathered(const int32_t* rows, int64_t count, int64_t width, size_t slot) const;

 private:
  at::Tensor tensor_;
};

// data, `size` numbers, rounded into scratch(slot) where products are of bf16.
Factor rounded(bool in_bf16, const float* data, int64_t size, int64_t stride, size_t slot);

// kernels/gemm.h's product. `in_bf16`: f32 factors are rounded on the way; otherwise none may be bf16.
void product(bool in_bf16, int64_t m, int64_t n, int64_t k, const Factor& a, const Factor& b, float* c,
             int64_t c_stride, float keep = 0.0f, float scale = 1.0f);

}  // namespace tessera
