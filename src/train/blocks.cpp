#include "train/blocks.h"

#include <limits>

#include "train/blocks_cpu.h"
#include "train/tasks.h"

namespace tessera {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// MKL, inside LibTorch, looks for each function's kernel at its first call and rarely gives one of two threads that
// make it together the least accurate of them (pytorch issue 188792; seen here as exp with errors of 1e-9 in f64): a
// run's first step would differ from its repetition. So one thread calls each of them once, before main.
[[maybe_unused]] const bool vector_math_is_resolved = [] {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    const at::Tensor one = at::ones({1}, type);
    for (const auto& function : {at::exp, at::log, at::sin, at::cos, at::sqrt, at::tanh, at::erf}) function(one);
  }
  return true;
}();

// The plain form, silu(g) * u, keeps three tensors and makes six passes over memory.
struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static Variable forward(AutogradContext* context, const Variable& gate_up) {
    context->save_for_backward({gate_up});
    return swiglu_forward(gate_up);
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    return {swiglu_backward(context->get_saved_variables()[0], grads[0])};
  }
};

Visible visible_range(const at::Tensor& begin_RT, const at::Tensor& end_RT, const at::Tensor& like) {
  Visible visible{begin_RT.to(at::kInt).contiguous(), end_RT.to(at::kInt).contiguous(), {}};
  if (uses_kernels(like)) return visible;
  const at::Tensor j_1T = at::arange(begin_RT.size(1), begin_RT.options()).unsqueeze(0);
  const at::Tensor seen_RTT = (j_1T >= begin_RT.unsqueeze(2)).logical_and(j_1T < end_RT.unsqueeze(2));
  visible.mask = at::zeros(seen_RTT.sizes(), like.options())
                     .masked_fill_(seen_RTT.logical_not(), -std::numeric_limits<double>::infinity())
                     .unsqueeze(1);
  return visible;
}

}  // namespace

at::Tensor project(const at::Tensor& x, const at::Tensor& weight) {
  return uses_kernels(x) ? linear_cpu(x, weight) : at::linear(x, weight.to(x.scalar_type()));
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (uses_kernels(x)) return rms_norm_cpu(x, weight, eps);
  if (x.scalar_type() == weight.scalar_type()) return at::rms_norm(x, {x.size(-1)}, weight, eps);
  return at::rms_norm(x.to(weight.scalar_type()), {x.size(-1)}, weight, eps).to(x.scalar_type());
}

at::Tensor swiglu_forward(const at::Tensor& gate_up) {
  const auto parts = gate_up.chunk(2, -1);
  return at::silu(parts[0]).mul_(parts[1]);
}

at::Tensor swiglu_backward(const at::Tensor& gate_up, const at::Tensor& grad) {
  const auto parts = gate_up.chunk(2, -1);
  const at::Tensor sigmoid = at::sigmoid(parts[0]);
  const at::Tensor silu = parts[0] * sigmoid;
  at::Tensor out = at::empty_like(gate_up);
  auto halves = out.chunk(2, -1);
  at::mul_out(halves[1], grad, silu);
  // d silu / d gate = sigmoid (1 + gate (1 - sigmoid)) = sigmoid + silu (1 - sigmoid)
  halves[0].copy_(sigmoid.addcmul(silu, 1 - sigmoid).mul_(parts[1]).mul_(grad));
  return out;
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  return uses_kernels(gate_up) ? swiglu_cpu(gate_up) : SwigluFunction::apply(gate_up);
}

Rotary rotary(const at::Tensor& positions_RT, int head_dim, double theta, at::ScalarType dtype,
              const std::vector<double>& divisors) {
  const at::Tensor exponent = at::arange(0, head_dim, 2, positions_RT.options().dtype(at::kDouble)).div_(head_dim);
  at::Tensor angle = positions_RT.to(at::kDouble).unsqueeze(-1) * at::pow(theta, exponent.neg());
  if (!divisors.empty()) angle = angle / at::tensor(divisors, at::kDouble).to(angle.device());
  const at::ScalarType table = dtype == at::kDouble ? at::kDouble : at::kFloat;  // 8 bits would move the positions
  return {at::cos(angle).to(table), at::sin(angle).to(table)};
}

namespace {

at::Tensor rotate_heads(const at::Tensor& x_RHTh, const Rotary& rotary) {  // [R, H, T, h]
  const auto halves = x_RHTh.chunk(2, -1);
  const at::Tensor cos = rotary.cos_RTh.unsqueeze(1), sin = rotary.sin_RTh.unsqueeze(1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1).to(x_RHTh.scalar_type());
}

}  // namespace

Visible causal(const at::Tensor& starts_RT, const at::Tensor& like) {
  const at::Tensor t = at::arange(starts_RT.size(1), starts_RT.options());
  return visible_range(starts_RT, (t + 1).expand_as(starts_RT), like);
}

Visible block_causal(const at::Tensor& starts_RT, const at::Tensor& chunk_ends_RT, int window, const at::Tensor& like) {
  const at::Tensor t = at::arange(starts_RT.size(1), starts_RT.options());
  return visible_range(at::maximum(starts_RT, t - (window - 1)), chunk_ends_RT, like);
}

at::Tensor attention(const at::Tensor& x_RTD, const AttentionWeights& weights, int num_heads, int num_kv_heads,
                     const Rotary& rotary, const Visible& visible) {
  if (uses_kernels(x_RTD)) return attention_cpu(x_RTD, weights, num_heads, num_kv_heads, rotary, visible);
  const int64_t rows = x_RTD.size(0), tokens = x_RTD.size(1);
  auto heads = [&](const at::Tensor& weight, int n) {
    return project(x_RTD, weight).view({rows, tokens, n, -1}).transpose(1, 2);
  };
  const at::Tensor query = rotate_heads(heads(weights.query, num_heads), rotary);
  at::Tensor key = rotate_heads(heads(weights.key, num_kv_heads), rotary);
  at::Tensor value = heads(weights.value, num_kv_heads);
  if (num_kv_heads != num_heads) {
    key = key.repeat_interleave(num_heads / num_kv_heads, 1);
    value = value.repeat_interleave(num_heads / num_kv_heads, 1);
  }
  const at::Tensor mixed = at::scaled_dot_product_attention(query, key, value, visible.mask);
  return project(mixed.transpose(1, 2).reshape({rows, tokens, -1}), weights.output);
}

}  // namespace tessera
