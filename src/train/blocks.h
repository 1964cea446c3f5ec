// The pieces of a transformer block: on the CPU kernels in f32 and bf16 (train/blocks_cpu), in plain tensor operations
// otherwise. Shapes: R rows, T tokens a row, D width, H heads, h head width.
#pragma once
#include "train/torch.h"

namespace tessera {

// x W^T with W [out, in], the weight cast to x's precision.
at::Tensor project(const at::Tensor& x, const at::Tensor& weight);

// x / rms(x) * weight over the last dimension, in f32 (Zhang, Sennrich 2019).
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// silu(gate) * up, the last dimension being [gate ; up] (Shazeer 2020). One saved tensor, one pass each way.
at::Tensor swiglu(const at::Tensor& gate_up);
// Its two halves, outside autograd: the value, and the gradient of gate_up given that of the value.
at::Tensor swiglu_forward(const at::Tensor& gate_up);
at::Tensor swiglu_backward(const at::Tensor& gate_up, const at::Tensor& grad);

// Rotary positions (Su et al. 2021), halves rotated as in Llama. cos and sin are [R, T, h/2].
struct Rotary {
  at::Tensor cos_RTh, sin_RTh;
};
// `dtype`: the model's; under bf16 the tables are f32. `divisors`: Trunk::rope_divisors.
Rotary rotary(const at::Tensor& positions_RT, int head_dim, double theta, at::ScalarType dtype,
              const std::vector<double>& divisors = {});

// What each token sees: the keys [begin, end) of its row, int32 [R, T]. `mask` is the same as an additive [R, 1, T, T]
// (0 or -inf), made only for the precisions and devices that the kernels don't serve.
struct Visible {
  at::Tensor begin_RT, end_RT, mask;
};
// starts_RT: where the token's piece begins in its row. Causal: token i sees j when both are of one piece and j <= i.
Visible causal(const at::Tensor& starts_RT, const at::Tensor& like);
// Block-causal: token i sees j of its piece when j is before the end of i's chunk and i - j < window (DESIGN section
// 3). `like`: a tensor of the precision and device that attention will run in.
Visible block_causal(const at::Tensor& starts_RT, const at::Tensor& chunk_ends_RT, int window, const at::Tensor& like);

struct AttentionWeights {
  at::Tensor query, key, value, output;  // [H h, D], [Hkv h, D], [Hkv h, D], [D, H h]
};
// Grouped-query attention over [R, T, D].
at::Tensor attention(const at::Tensor& x_RTD, const AttentionWeights& weights, int num_heads, int num_kv_heads,
                     const Rotary& rotary, const Visible& visible);

}  // namespace tessera
