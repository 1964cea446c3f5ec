#include "train/component_layer.h"

#include "base/error.h"
#include "train/blocks.h"
#include "train/tasks.h"

namespace tessera {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Rows of a matrix that belong to group i: [offsets[i], offsets[i + 1]).
using Offsets = std::vector<int64_t>;

Offsets offsets_of(const at::Tensor& counts) {
  const at::Tensor on_cpu = counts.to(at::kCPU, at::kLong).contiguous();
  Offsets offsets(1, 0);
  for (int64_t i = 0; i < on_cpu.numel(); ++i) offsets.push_back(offsets.back() + on_cpu.data_ptr<int64_t>()[i]);
  return offsets;
}

// Calls body(group, first row, rows) for every group, the groups shared out over the threads by rows: a product of some
// hundred rows is too small to be worth splitting itself. Each group is one thread's, so the result is deterministic.
template <class Body>
void for_each_group(const Offsets& offsets, const Body& body) {
  const int64_t num_groups = static_cast<int64_t>(offsets.size()) - 1;
  auto run = [&](int64_t first_row, int64_t end_row) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;  // is thread-local
    for (int64_t g = 0; g < num_groups; ++g) {
      const int64_t begin = offsets[static_cast<size_t>(g)], end = offsets[static_cast<size_t>(g) + 1];
      const int64_t middle = std::min((begin + end) / 2, offsets.back() - 1);
      if (middle >= first_row && middle < end_row) body(g, begin, end - begin);
    }
  };
  const int64_t rows = offsets.back();
  at::parallel_for(0, rows, std::max<int64_t>(64, (rows + at::get_num_threads() - 1) / at::get_num_threads()), run);
}

// out[group i] = in[group i] W_i^T, or W_i when not transposed.
at::Tensor grouped_linear(const at::Tensor& in_PI, const at::Tensor& weight_GOI, const Offsets& offsets,
                          bool transposed) {
  at::Tensor out = at::empty({in_PI.size(0), weight_GOI.size(transposed ? 1 : 2)}, in_PI.options());
  for_each_group(offsets, [&](int64_t g, int64_t begin, int64_t count) {
    if (count == 0) return;
    const at::Tensor weight = weight_GOI.select(0, g);
    at::Tensor rows = out.narrow(0, begin, count);
    at::mm_out(rows, in_PI.narrow(0, begin, count), transposed ? weight.t() : weight);
  });
  return out;
}

// Gradient of the stack: dW_i = grad_out[group i]^T in[group i]; zero where a group is empty.
at::Tensor grouped_weight_grad(const at::Tensor& grad_PO, const at::Tensor& in_PI, const Offsets& offsets) {
  const int64_t groups = static_cast<int64_t>(offsets.size()) - 1;
  at::Tensor grad = at::empty({groups, grad_PO.size(1), in_PI.size(1)}, in_PI.options());
  for_each_group(offsets, [&](int64_t g, int64_t begin, int64_t count) {
    at::Tensor slice = grad.select(0, g);
    if (count == 0) {
      slice.zero_();
    } else {
      at::mm_out(slice, grad_PO.narrow(0, begin, count).t(), in_PI.narrow(0, begin, count));
    }
  });
  return grad;
}

// Where each token's work lies: assignments (token, k) sorted by component, and the (token, bank) pairs they need,
// sorted by bank.
struct Permutation {
  at::Tensor order_A;         // assignment (token * K + k) at each sorted place
  at::Tensor token_A;         // its token
  Offsets component_offsets;  // [N + 1] into sorted places
  at::Tensor bank_token_P;    // token of each (bank, token) pair
  at::Tensor bank_row_A;      // pair that each assignment reads
  Offsets bank_offsets;       // [G + 1] into pairs
};

Permutation permute(const at::Tensor& ids_SK, int64_t num_components, const std::vector<int>& bank_of,
                    int64_t num_banks) {
  const int64_t num_tokens = ids_SK.size(0), k = ids_SK.size(1);
  Permutation p;
  const at::Tensor ids_A = ids_SK.reshape({-1});
  p.order_A = at::argsort(ids_A, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  p.token_A = at::floor_divide(p.order_A, k);
  p.component_offsets = offsets_of(at::bincount(ids_A, {}, num_components));
  if (num_banks == 0) return p;
  std::vector<int64_t> banks(bank_of.begin(), bank_of.end());
  const at::Tensor bank_of_N = at::tensor(banks, ids_SK.options());
  const at::Tensor bank_SK = bank_of_N.index_select(0, ids_A).view_as(ids_SK);
  const at::Tensor needed_GS =
      at::zeros({num_tokens, num_banks}, ids_SK.options()).scatter_(1, bank_SK, 1).t().contiguous();
  p.bank_token_P = needed_GS.nonzero().select(1, 1);
  p.bank_offsets = offsets_of(needed_GS.sum(1));
  const at::Tensor pair_GS = needed_GS.view(-1).cumsum(0).sub_(1);
  p.bank_row_A = pair_GS.index_select(0, bank_SK.reshape({-1}).index_select(0, p.order_A) * num_tokens + p.token_A);
  return p;
}

struct ComponentLayerFunction : torch::autograd::Function<ComponentLayerFunction> {
  static Variable forward(AutogradContext* context, const Variable& x_SD, const Variable& ids_SK,
                          const Variable& weights_SK, const Variable& bank_gate_up, const Variable& component_gate_up,
                          const Variable& component_down, const std::vector<int>& bank_of) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const bool has_banks = bank_gate_up.numel() > 0, has_unique = component_gate_up.numel() > 0;
    const Permutation p = permute(ids_SK, component_down.size(0), bank_of, has_banks ? bank_gate_up.size(0) : 0);
    const int64_t num_assignments = p.token_A.size(0), base = has_banks ? bank_gate_up.size(1) / 2 : 0;
    const at::ScalarType dtype = x_SD.scalar_type();

    at::Tensor hidden_AF = at::empty({num_assignments, component_down.size(2)}, x_SD.options());
    at::Tensor bank_pre_P2F, unique_pre_A2F;
    if (has_banks) {
      bank_pre_P2F = grouped_linear(x_SD.index_select(0, p.bank_token_P), bank_gate_up.to(dtype), p.bank_offsets, true);
      hidden_AF.narrow(1, 0, base).copy_(swiglu_forward(bank_pre_P2F).index_select(0, p.bank_row_A));
    }
    if (has_unique) {
      unique_pre_A2F =
          grouped_linear(x_SD.index_select(0, p.token_A), component_gate_up.to(dtype), p.component_offsets, true);
      hidden_AF.narrow(1, base, hidden_AF.size(1) - base).copy_(swiglu_forward(unique_pre_A2F));
    }
    at::Tensor y_AD = grouped_linear(hidden_AF, component_down.to(dtype), p.component_offsets, true);
    y_AD.mul_(weights_SK.reshape({-1}).index_select(0, p.order_A).to(dtype).unsqueeze(1));
    const at::Tensor y_SD = at::zeros_like(x_SD).index_add_(0, p.token_A, y_AD);

    context->save_for_backward({x_SD, weights_SK, bank_gate_up, component_gate_up, component_down, bank_pre_P2F,
                                unique_pre_A2F, hidden_AF, p.order_A, p.token_A, p.bank_token_P, p.bank_row_A});
    context->saved_data["component_offsets"] = p.component_offsets;
    context->saved_data["bank_offsets"] = p.bank_offsets;
    return y_SD;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x_SD = saved[0], &weights_SK = saved[1], &bank_gate_up = saved[2], &component_gate_up = saved[3],
                     &component_down = saved[4], &bank_pre_P2F = saved[5], &unique_pre_A2F = saved[6],
                     &hidden_AF = saved[7], &order_A = saved[8], &token_A = saved[9], &bank_token_P = saved[10],
                     &bank_row_A = saved[11];
    const Offsets component_offsets = context->saved_data["component_offsets"].toIntVector();
    const Offsets bank_offsets = context->saved_data["bank_offsets"].toIntVector();
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::ScalarType dtype = x_SD.scalar_type();
    const bool has_banks = bank_gate_up.numel() > 0, has_unique = component_gate_up.numel() > 0;
    const int64_t base = has_banks ? bank_gate_up.size(1) / 2 : 0, unique = hidden_AF.size(1) - base;

    const at::Tensor weight_A = weights_SK.reshape({-1}).index_select(0, order_A).to(dtype).unsqueeze(1);
    const at::Tensor grad_AD = grads[0].index_select(0, token_A);
    // Without the weight first: <grad, y_c> = <h, W_c^T grad> is the gradient of the weight.
    at::Tensor grad_hidden_AF = grouped_linear(grad_AD, component_down.to(dtype), component_offsets, false);
    const at::Tensor grad_weight_A = at::mul(grad_hidden_AF, hidden_AF).sum(1);
    const at::Tensor grad_weights_SK = at::empty({weights_SK.numel()}, grad_weight_A.options())
                                           .index_copy_(0, order_A, grad_weight_A)
                                           .view_as(weights_SK)
                                           .to(weights_SK.scalar_type());
    grad_hidden_AF.mul_(weight_A);
    const at::Tensor grad_down =
        grouped_weight_grad(grad_AD.mul(weight_A), hidden_AF, component_offsets).to(component_down.scalar_type());

    at::Tensor grad_x_SD = at::zeros_like(x_SD), grad_bank, grad_unique;
    if (has_unique) {
      const at::Tensor grad_pre = swiglu_backward(unique_pre_A2F, grad_hidden_AF.narrow(1, base, unique));
      grad_unique = grouped_weight_grad(grad_pre, x_SD.index_select(0, token_A), component_offsets)
                        .to(component_gate_up.scalar_type());
      grad_x_SD.index_add_(0, token_A, grouped_linear(grad_pre, component_gate_up.to(dtype), component_offsets, false));
    }
    if (has_banks) {
      const at::Tensor grad_base = at::zeros({bank_pre_P2F.size(0), base}, x_SD.options())
                                       .index_add_(0, bank_row_A, grad_hidden_AF.narrow(1, 0, base));
      const at::Tensor grad_pre = swiglu_backward(bank_pre_P2F, grad_base);
      grad_bank = grouped_weight_grad(grad_pre, x_SD.index_select(0, bank_token_P), bank_offsets)
                      .to(bank_gate_up.scalar_type());
      grad_x_SD.index_add_(0, bank_token_P, grouped_linear(grad_pre, bank_gate_up.to(dtype), bank_offsets, false));
    }
    return {grad_x_SD, {}, grad_weights_SK, grad_bank, grad_unique, grad_down, {}};
  }
};

}  // namespace

at::Tensor component_layer(const at::Tensor& x_SD, const at::Tensor& ids_SK, const at::Tensor& weights_SK,
                           const ComponentWeights& weights) {
  TESSERA_CHECK(ids_SK.scalar_type() == at::kLong && ids_SK.sizes() == weights_SK.sizes(),
                "ids and weights must be [S, K]");
  if (uses_kernels(x_SD)) return component_layer_cpu(x_SD, ids_SK, weights_SK, weights);
  // The autograd machinery wants tensors, so an absent stack travels as an empty one.
  auto stack = [&](const at::Tensor& tensor) { return tensor.defined() ? tensor : at::empty({0}, x_SD.options()); };
  return ComponentLayerFunction::apply(x_SD, ids_SK, weights_SK, stack(weights.bank_gate_up),
                                       stack(weights.component_gate_up), weights.component_down, weights.bank_of);
}

}  // namespace tessera
