#include "train/blocks_cpu.h"

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "train/attention_bf16.h"
#include "train/products.h"
#include "train/section_timer.h"
#include "train/tasks.h"

namespace tessera {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

constexpr int64_t kBlockRows = 256;

const float* data(const at::Tensor& t) { return t.const_data_ptr<float>(); }
const at::BFloat16* bf16(const at::Tensor& t) { return t.const_data_ptr<at::BFloat16>(); }
float* mutable_data(const at::Tensor& t) { return t.mutable_data_ptr<float>(); }

// The rows of x as a matrix [rows, width].
int64_t num_rows(const at::Tensor& x) { return x.numel() / x.size(-1); }

// grad_W [out, in] = grad_y [rows, out]^T x [rows, in], the rows of W shared out over the threads.
struct WeightGrad {
  const FactorTensor &grad_y, &x;
  int64_t rows, out, in;
  float* grad_w;
};

void weight_grads(bool in_bf16, const std::vector<WeightGrad>& products) {
  constexpr int64_t kBlockOutputs = 96;
  std::vector<std::pair<size_t, int64_t>> tasks;
  for (size_t i = 0; i < products.size(); ++i)
    for (int64_t o = 0; o < products[i].out; o += kBlockOutputs) tasks.push_back({i, o});
  for_each_task(static_cast<int64_t>(tasks.size()), [&](int64_t task) {
    const auto [i, first] = tasks[static_cast<size_t>(task)];
    const WeightGrad& g = products[i];
    product(in_bf16, std::min(kBlockOutputs, g.out - first), g.in, g.rows, g.grad_y.from(first, g.out, true),
            g.x.from(0, g.in), g.grad_w + first * g.in, g.in);
  });
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static Variable forward(AutogradContext* context, const Variable& x_in, const Variable& weight) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("linear forward");
    const bool in_bf16 = multiplies_bf16(x_in.scalar_type());
    const FactorTensor x(x_in, in_bf16), w(weight, in_bf16);
    std::vector<int64_t> shape = x_in.sizes().vec();
    shape.back() = weight.size(0);
    const at::Tensor y = at::empty(shape, x_in.options().dtype(at::kFloat));
    const int64_t out = weight.size(0), in = weight.size(1);
    for_each_row_block(num_rows(x_in), kBlockRows, [&](int64_t first, int64_t count) {
      product(in_bf16, count, out, in, x.from(first * in, in), w.from(0, in, true), mutable_data(y) + first * out, out);
    });
    context->save_for_backward({x_in, weight});
    return y.to(x_in.scalar_type());
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("linear backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x_in = saved[0], &weight = saved[1];
    const bool in_bf16 = multiplies_bf16(x_in.scalar_type());
    const FactorTensor grad_y(grads[0], in_bf16);
    const int64_t out = weight.size(0), in = weight.size(1);
    at::Tensor grad_x, grad_weight;
    if (context->needs_input_grad(0)) {
      const FactorTensor w(weight, in_bf16);
      grad_x = at::empty(x_in.sizes(), x_in.options().dtype(at::kFloat));
      for_each_row_block(num_rows(x_in), kBlockRows, [&](int64_t first, int64_t count) {
        product(in_bf16, count, in, out, grad_y.from(first * out, out), w.from(0, in),
                mutable_data(grad_x) + first * in, in);
      });
      grad_x = grad_x.to(x_in.scalar_type());
    }
    if (context->needs_input_grad(1)) {
      const FactorTensor x(x_in, in_bf16);
      grad_weight = at::empty_like(weight);
      weight_grads(in_bf16, {{grad_y, x, num_rows(x_in), out, in, mutable_data(grad_weight)}});
    }
    return {grad_x, grad_weight};
  }
};

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static Variable forward(AutogradContext* context, const Variable& x_in, const Variable& weight, double eps) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("norm forward");
    const at::Tensor x = as_f32(x_in);
    const int64_t width = x.size(-1);
    const at::Tensor y = at::empty_like(x), inverse_rms = at::empty({num_rows(x)}, x.options());
    for_each_row_block(num_rows(x), kBlockRows, [&](int64_t first, int64_t count) {
      rms_norm_forward(data(x) + first * width, data(weight), count, width, static_cast<float>(eps),
                       mutable_data(y) + first * width, mutable_data(inverse_rms) + first);
    });
    context->save_for_backward({x_in, weight, inverse_rms});
    return y.to(x_in.scalar_type());
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("norm backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &weight = saved[1], &inverse_rms = saved[2], x = as_f32(saved[0]), grad_y = as_f32(grads[0]);
    const int64_t width = x.size(-1), blocks = (num_rows(x) + kBlockRows - 1) / kBlockRows;
    const at::Tensor grad_x = at::empty_like(x), partial = at::zeros({blocks, width}, x.options());
    for_each_row_block(num_rows(x), kBlockRows, [&](int64_t first, int64_t count) {
      rms_norm_backward(data(x) + first * width, data(weight), data(inverse_rms) + first, data(grad_y) + first * width,
                        count, width, mutable_data(grad_x) + first * width,
                        mutable_data(partial) + first / kBlockRows * width);
    });
    return {grad_x.to(saved[0].scalar_type()), partial.sum(0), {}};
  }
};

struct SwigluCpu : torch::autograd::Function<SwigluCpu> {
  static Variable forward(AutogradContext* context, const Variable& gate_up_in) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("swiglu forward");
    const at::Tensor gate_up = as_f32(gate_up_in);
    std::vector<int64_t> shape = gate_up.sizes().vec();
    const int64_t width = shape.back() /= 2;
    const at::Tensor y = at::empty(shape, gate_up.options());
    for_each_row_block(num_rows(gate_up), kBlockRows, [&](int64_t first, int64_t count) {
      swiglu_forward(data(gate_up) + first * 2 * width, count, width, mutable_data(y) + first * width, width);
    });
    context->save_for_backward({gate_up_in});
    return y.to(gate_up_in.scalar_type());
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("swiglu backward");
    const at::Tensor kept = context->get_saved_variables()[0], gate_up = as_f32(kept), grad_y = as_f32(grads[0]);
    const int64_t width = gate_up.size(-1) / 2;
    const at::Tensor grad = at::empty_like(gate_up);
    for_each_row_block(num_rows(gate_up), kBlockRows, [&](int64_t first, int64_t count) {
      swiglu_backward(data(gate_up) + first * 2 * width, data(grad_y) + first * width, width, count, width, nullptr,
                      mutable_data(grad) + first * 2 * width, nullptr, 0, nullptr);
    });
    return {grad.to(kept.scalar_type())};
  }
};

// Projections, rotation, attention and output projection as one function: nothing but x, q, k, v and the mixed values
// is kept.
struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static Variable forward(AutogradContext* context, const Variable& x_in, const Variable& w_query,
                          const Variable& w_key, const Variable& w_value, const Variable& w_output, int64_t num_heads,
                          int64_t num_kv_heads, const Variable& cos, const Variable& sin, const Variable& begin_RT,
                          const Variable& end_RT) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("attention forward");
    const at::ScalarType kept = x_in.scalar_type();
    const bool in_bf16 = multiplies_bf16(kept);
    const FactorTensor x(x_in, in_bf16), query_w(w_query, in_bf16), key_w(w_key, in_bf16), value_w(w_value, in_bf16);
    const auto f32 = x_in.options().dtype(at::kFloat);
    const int64_t rows = x_in.size(0), tokens = x_in.size(1), width = x_in.size(2), total = rows * tokens;
    const int64_t q_width = w_query.size(0), kv_width = w_key.size(0), head_dim = q_width / num_heads;
    at::Tensor query = at::empty({total, q_width}, f32), key = at::empty({total, kv_width}, f32);
    at::Tensor value = at::empty_like(key);
    const at::Tensor mixed = at::empty_like(query), y = at::empty(x_in.sizes(), f32);
    const at::Tensor log_sum_exp = at::empty({rows, num_heads, tokens}, f32);

    for_each_row_block(total, kBlockRows, [&](int64_t first, int64_t count) {
      const Factor in = x.from(first * width, width);
      const float *c = data(cos) + first * head_dim / 2, *s = data(sin) + first * head_dim / 2;
      float *q = mutable_data(query) + first * q_width, *k = mutable_data(key) + first * kv_width;
      product(in_bf16, count, q_width, width, in, query_w.from(0, width, true), q, q_width);
      product(in_bf16, count, kv_width, width, in, key_w.from(0, width, true), k, kv_width);
      product(in_bf16, count, kv_width, width, in, value_w.from(0, width, true), mutable_data(value) + first * kv_width,
              kv_width);
      rotate_heads(q, count, num_heads, head_dim, c, s, 1);
      rotate_heads(k, count, num_kv_heads, head_dim, c, s, 1);
    });
    // Under bf16 scores are of what is kept: the gradient's probabilities are made of it and of log_sum_exp.
    const at::Tensor kept_query = query.to(kept), kept_key = key.to(kept), kept_value = value.to(kept);
    query = as_multiplied(kept_query, in_bf16), key = as_multiplied(kept_key, in_bf16);
    value = as_multiplied(kept_value, in_bf16);
    for_each_task(rows * num_heads, [&](int64_t task) {
      const int64_t row = task / num_heads, at = row * tokens, q_at = at * q_width, kv_at = at * kv_width;
      const AttentionRow shape = row_shape(tokens, num_heads, num_kv_heads, head_dim, begin_RT, end_RT, row);
      float *out = mutable_data(mixed) + q_at, *sums = mutable_data(log_sum_exp) + at * num_heads;
      if (in_bf16) {
        attention_forward_bf16(shape, task % num_heads, bf16(query) + q_at, bf16(key) + kv_at, bf16(value) + kv_at, out,
                               sums);
      } else {
        attention_forward(shape, task % num_heads, data(query) + q_at, data(key) + kv_at, data(value) + kv_at, out,
                          sums);
      }
    });
    const at::Tensor kept_mixed = mixed.to(kept);
    const FactorTensor output_in(in_bf16 ? kept_mixed : mixed, in_bf16), output_w(w_output, in_bf16);
    for_each_row_block(total, kBlockRows, [&](int64_t first, int64_t count) {
      product(in_bf16, count, width, q_width, output_in.from(first * q_width, q_width), output_w.from(0, q_width, true),
              mutable_data(y) + first * width, width);
    });

    context->save_for_backward({x_in, w_query, w_key, w_value, w_output, kept_query, kept_key, kept_value, kept_mixed,
                                log_sum_exp, cos, sin, begin_RT, end_RT});
    context->saved_data["num_heads"] = num_heads;
    context->saved_data["num_kv_heads"] = num_kv_heads;
    return y.to(kept);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("attention backward");
    const auto saved = context->get_saved_variables();
    const at::Tensor &w_query = saved[1], &w_key = saved[2], &w_value = saved[3], &w_output = saved[4],
                     &log_sum_exp = saved[9], &cos = saved[10], &sin = saved[11], &begin_RT = saved[12],
                     &end_RT = saved[13];
    const at::Tensor &x_in = saved[0], mixed = as_f32(saved[8]);
    const bool in_bf16 = multiplies_bf16(x_in.scalar_type());
    const at::Tensor query = as_multiplied(saved[5], in_bf16), key = as_multiplied(saved[6], in_bf16),
                     value = as_multiplied(saved[7], in_bf16);
    const int64_t num_heads = context->saved_data["num_heads"].toInt();
    const int64_t num_kv_heads = context->saved_data["num_kv_heads"].toInt();
    const int64_t rows = x_in.size(0), tokens = x_in.size(1), width = x_in.size(2), total = rows * tokens;
    const int64_t q_width = w_query.size(0), kv_width = w_key.size(0), head_dim = q_width / num_heads;
    const FactorTensor grad_y(grads[0], in_bf16), output_w(w_output, in_bf16);
    at::Tensor grad_mixed = at::empty_like(mixed);
    const at::Tensor grad_query = at::empty_like(mixed);
    const at::Tensor grad_key = at::empty({total, kv_width}, mixed.options()), grad_value = at::empty_like(grad_key);
    const at::Tensor grad_x = at::empty(x_in.sizes(), mixed.options());

    for_each_row_block(total, kBlockRows, [&](int64_t first, int64_t count) {
      product(in_bf16, count, q_width, width, grad_y.from(first * width, width), output_w.from(0, q_width),
              mutable_data(grad_mixed) + first * q_width, q_width);
    });
    grad_mixed = as_multiplied(grad_mixed, in_bf16);
    for_each_task(rows * num_kv_heads, [&](int64_t task) {
      const int64_t row = task / num_kv_heads, at = row * tokens, q_at = at * q_width, kv_at = at * kv_width;
      const AttentionRow shape = row_shape(tokens, num_heads, num_kv_heads, head_dim, begin_RT, end_RT, row);
      const float *out = data(mixed) + q_at, *sums = data(log_sum_exp) + at * num_heads;
      float *to_query = mutable_data(grad_query) + q_at, *to_key = mutable_data(grad_key) + kv_at,
            *to_value = mutable_data(grad_value) + kv_at;
      if (in_bf16) {
        attention_backward_bf16(shape, task % num_kv_heads, bf16(query) + q_at, bf16(key) + kv_at, bf16(value) + kv_at,
                                out, sums, bf16(grad_mixed) + q_at, to_query, to_key, to_value);
      } else {
        attention_backward(shape, task % num_kv_heads, data(query) + q_at, data(key) + kv_at, data(value) + kv_at, out,
                           sums, data(grad_mixed) + q_at, to_query, to_key, to_value);
      }
    });
    for_each_row_block(total, kBlockRows, [&](int64_t first, int64_t count) {
      const float *c = data(cos) + first * head_dim / 2, *s = data(sin) + first * head_dim / 2;
      rotate_heads(mutable_data(grad_query) + first * q_width, count, num_heads, head_dim, c, s, -1);
      rotate_heads(mutable_data(grad_key) + first * kv_width, count, num_kv_heads, head_dim, c, s, -1);
    });
    const FactorTensor query_w(w_query, in_bf16), key_w(w_key, in_bf16), value_w(w_value, in_bf16);
    const FactorTensor of_query(grad_query, in_bf16), of_key(grad_key, in_bf16), of_value(grad_value, in_bf16);
    for_each_row_block(total, kBlockRows, [&](int64_t first, int64_t count) {
      float* out = mutable_data(grad_x) + first * width;
      product(in_bf16, count, width, q_width, of_query.from(first * q_width, q_width), query_w.from(0, width), out,
              width);
      product(in_bf16, count, width, kv_width, of_key.from(first * kv_width, kv_width), key_w.from(0, width), out,
              width, 1);
      product(in_bf16, count, width, kv_width, of_value.from(first * kv_width, kv_width), value_w.from(0, width), out,
              width, 1);
    });
    const FactorTensor x(x_in, in_bf16), mixed_in(in_bf16 ? saved[8] : mixed, in_bf16);
    const at::Tensor to_query = at::empty_like(w_query), to_key = at::empty_like(w_key);
    const at::Tensor to_value = at::empty_like(w_value), to_output = at::empty_like(w_output);
    weight_grads(in_bf16, {{of_query, x, total, q_width, width, mutable_data(to_query)},
                           {of_key, x, total, kv_width, width, mutable_data(to_key)},
                           {of_value, x, total, kv_width, width, mutable_data(to_value)},
                           {grad_y, mixed_in, total, width, q_width, mutable_data(to_output)}});
    return {grad_x.to(x_in.scalar_type()), to_query, to_key, to_value, to_output, {}, {}, {}, {}, {}, {}};
  }

  static AttentionRow row_shape(int64_t tokens, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                                const at::Tensor& begin_RT, const at::Tensor& end_RT, int64_t row) {
    return {tokens,
            num_heads,
            num_kv_heads,
            head_dim,
            begin_RT.const_data_ptr<int32_t>() + row * tokens,
            end_RT.const_data_ptr<int32_t>() + row * tokens};
  }
};

}  // namespace

at::Tensor linear_cpu(const at::Tensor& x, const at::Tensor& weight) { return LinearFunction::apply(x, weight); }

at::Tensor rms_norm_cpu(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return RmsNormFunction::apply(x, weight, eps);
}

at::Tensor swiglu_cpu(const at::Tensor& gate_up) { return SwigluCpu::apply(gate_up); }

at::Tensor attention_cpu(const at::Tensor& x_RTD, const AttentionWeights& weights, int num_heads, int num_kv_heads,
                         const Rotary& rotary, const Visible& visible) {
  return AttentionFunction::apply(x_RTD, weights.query, weights.key, weights.value, weights.output, num_heads,
                                  num_kv_heads, rotary.cos_RTh, rotary.sin_RTh, visible.begin_RT, visible.end_RT);
}

}  // namespace tessera
