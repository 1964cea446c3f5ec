// The pieces of a transformer block as differentiable functions on the CPU kernels (f32, or bf16 around f32).
// train/blocks dispatches to them and holds the same functions in plain tensor operations, which tests compare them
// with.
#pragma once
#include "train/blocks.h"

namespace tessera {

// x [..., in], f32 or bf16; weight [out, in], f32, contiguous -> [..., out] as x.
at::Tensor linear_cpu(const at::Tensor& x, const at::Tensor& weight);
// x [..., D], f32 or bf16; weight [D], f32.
at::Tensor rms_norm_cpu(const at::Tensor& x, const at::Tensor& weight, double eps);
// gate_up [..., 2 F] -> [..., F].
at::Tensor swiglu_cpu(const at::Tensor& gate_up);
at::Tensor attention_cpu(const at::Tensor& x_RTD, const AttentionWeights& weights, int num_heads, int num_kv_heads,
                         const Rotary& rotary, const Visible& visible);

}  // namespace tessera
