#include "train/component_layer.h"

#include "base/error.h"
#include "train/blocks.h"
#include "train/tasks.h"

namespace tessera {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Rows sorted by group, and where each lies in a [groups, busiest group's rows] rectangle, so that the products of all
// groups are one batched product: a loop over groups would cost a launch each. The rectangle is as many times the
// rows as the busiest group is busier than the mean: about twice when load is balanced, N/K at most.
struct Groups {
  int64_t count = 0, height = 0;
  at::Tensor place_P;  // of each row in the rectangle
  at::Tensor row_R;    // of each place, the row; places that no row has read row P, zeros
};

// group_P is sorted; rows_G counts each group's rows.
Groups group_rows(const at::Tensor& group_P, const at::Tensor& rows_G) {
  Groups g;
  g.count = rows_G.size(0);
  g.height = rows_G.max().item<int64_t>();
  const int64_t rows = group_P.size(0);
  const at::Tensor first_G = rows_G.cumsum(0) - rows_G, place_H = at::arange(g.height, group_P.options());
  g.place_P = at::arange(rows, group_P.options()) +
              (at::arange(g.count, group_P.options()) * g.height - first_G).index_select(0, group_P);
  g.row_R = at::where(place_H < rows_G.unsqueeze(1), first_G.unsqueeze(1) + place_H, rows).view(-1);
  return g;
}

// One row of zeros more: what an index reads where there is nothing.
at::Tensor with_zero_row(const at::Tensor& rows) { return at::constant_pad_nd(rows, {0, 0, 0, 1}); }

// [groups, height, I] of rows [P, I].
at::Tensor rectangle(const at::Tensor& in_PI, const Groups& g) {
  return with_zero_row(in_PI).index_select(0, g.row_R).view({g.count, g.height, in_PI.size(1)});
}

// out[group i] = in[group i] W_i^T, or W_i when not transposed.
at::Tensor grouped_linear(const at::Tensor& in_PI, const at::Tensor& weight_GOI, const Groups& g, bool transposed) {
  const at::Tensor out = at::bmm(rectangle(in_PI, g), transposed ? weight_GOI.transpose(1, 2) : weight_GOI);
  return out.flatten(0, 1).index_select(0, g.place_P);
}

// Gradient of the stack: dW_i = grad_out[group i]^T in[group i].
at::Tensor grouped_weight_grad(const at::Tensor& grad_PO, const at::Tensor& in_PI, const Groups& g) {
  return at::bmm(rectangle(grad_PO, g).transpose(1, 2), rectangle(in_PI, g));
}

// Where each token's work lies: assignments (token, k) sorted by component, and the (bank, token) pairs they need,
// sorted by bank. There is an index for every way, so that all sums are gathers: adding at an index is not repeatable
// on CUDA.
struct Permutation {
  at::Tensor order_A;          // assignment (token * K + k) at each sorted place
  at::Tensor place_A;          // the other way round
  at::Tensor token_A;          // token at each sorted place
  Groups components;           // of the sorted places
  at::Tensor bank_token_P;     // token of each pair
  at::Tensor bank_row_A;       // pair that each sorted place reads
  at::Tensor bank_readers_PK;  // the places that read each pair; A: none
  at::Tensor bank_rows_SK;     // the pairs of each token; P: none
  Groups banks;                // of the pairs
};

Permutation permute(const at::Tensor& ids_SK, int64_t num_components, const std::vector<int>& bank_of,
                    int64_t num_banks) {
  const int64_t num_tokens = ids_SK.size(0), k = ids_SK.size(1);
  Permutation p;
  const at::Tensor ids_A = ids_SK.reshape({-1});
  const auto [sorted_ids_A, order_A] = at::sort(ids_A, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  p.order_A = order_A;
  p.place_A = at::argsort(order_A);
  p.token_A = at::floor_divide(order_A, k);
  p.components = group_rows(sorted_ids_A, at::bincount(ids_A, {}, num_components));
  if (num_banks == 0) return p;
  std::vector<int64_t> banks(bank_of.begin(), bank_of.end());
  const at::Tensor bank_SK = at::tensor(banks, at::kLong).to(ids_SK.device()).index_select(0, ids_A).view_as(ids_SK);
  const at::Tensor needed_GS =
      at::zeros({num_tokens, num_banks}, ids_SK.options()).scatter_(1, bank_SK, 1).t().contiguous();
  const at::Tensor pairs_P2 = needed_GS.nonzero(), bank_P = pairs_P2.select(1, 0);
  p.bank_token_P = pairs_P2.select(1, 1);
  p.banks = group_rows(bank_P, needed_GS.sum(1));
  const at::Tensor pair_GS = needed_GS.view(-1).cumsum(0).sub_(1);
  const at::Tensor pair_SK =
      pair_GS.index_select(0, (bank_SK * num_tokens + at::arange(num_tokens, ids_SK.options()).unsqueeze(1)).view(-1))
          .view_as(ids_SK);
  p.bank_row_A = pair_SK.view(-1).index_select(0, order_A);
  const at::Tensor reads_PK = bank_SK.index_select(0, p.bank_token_P) == bank_P.unsqueeze(1);
  p.bank_readers_PK = at::where(reads_PK, p.place_A.view_as(ids_SK).index_select(0, p.bank_token_P), num_tokens * k);
  const at::Tensor same_SKK =
      bank_SK.unsqueeze(2) == bank_SK.unsqueeze(1);  // a bank that two choices share counts once
  p.bank_rows_SK = at::where(same_SKK.tril(-1).any(2), pairs_P2.size(0), pair_SK);
  return p;
}

// Sums of rows: out[i] = sum over k of rows[index[i, k]].
at::Tensor gather_sum(const at::Tensor& rows, const at::Tensor& index_IK) {
  return rows.index_select(0, index_IK.reshape({-1})).view({index_IK.size(0), index_IK.size(1), rows.size(1)}).sum(1);
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
      bank_pre_P2F = grouped_linear(x_SD.index_select(0, p.bank_token_P), bank_gate_up.to(dtype), p.banks, true);
      hidden_AF.narrow(1, 0, base).copy_(swiglu_forward(bank_pre_P2F).index_select(0, p.bank_row_A));
    }
    if (has_unique) {
      unique_pre_A2F = grouped_linear(x_SD.index_select(0, p.token_A), component_gate_up.to(dtype), p.components, true);
      hidden_AF.narrow(1, base, hidden_AF.size(1) - base).copy_(swiglu_forward(unique_pre_A2F));
    }
    at::Tensor y_AD = grouped_linear(hidden_AF, component_down.to(dtype), p.components, true);
    y_AD.mul_(weights_SK.reshape({-1}).index_select(0, p.order_A).to(dtype).unsqueeze(1));
    context->save_for_backward({x_SD, weights_SK, bank_gate_up, component_gate_up, component_down, bank_pre_P2F,
                                unique_pre_A2F, hidden_AF, p.order_A, p.place_A, p.token_A, p.components.place_P,
                                p.components.row_R, p.bank_token_P, p.bank_readers_PK, p.bank_rows_SK, p.banks.place_P,
                                p.banks.row_R});
    return gather_sum(y_AD, p.place_A.view_as(ids_SK));
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x_SD = saved[0], &weights_SK = saved[1], &bank_gate_up = saved[2], &component_gate_up = saved[3],
                     &component_down = saved[4], &bank_pre_P2F = saved[5], &unique_pre_A2F = saved[6],
                     &hidden_AF = saved[7], &order_A = saved[8], &place_A = saved[9], &token_A = saved[10],
                     &bank_token_P = saved[13], &bank_readers_PK = saved[14], &bank_rows_SK = saved[15];
    const auto groups = [](const at::Tensor& stack, const at::Tensor& place_P, const at::Tensor& row_R) {
      return Groups{stack.size(0), row_R.size(0) / stack.size(0), place_P, row_R};
    };
    const Groups components = groups(component_down, saved[11], saved[12]);
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const at::ScalarType dtype = x_SD.scalar_type();
    const bool has_banks = bank_gate_up.numel() > 0, has_unique = component_gate_up.numel() > 0;
    const int64_t base = has_banks ? bank_gate_up.size(1) / 2 : 0, unique = hidden_AF.size(1) - base;

    const at::Tensor weight_A = weights_SK.reshape({-1}).index_select(0, order_A).to(dtype).unsqueeze(1);
    const at::Tensor grad_AD = grads[0].index_select(0, token_A);
    // Without the weight first: <grad, y_c> = <h, W_c^T grad> is the gradient of the weight.
    at::Tensor grad_hidden_AF = grouped_linear(grad_AD, component_down.to(dtype), components, false);
    const at::Tensor grad_weight_A = at::mul(grad_hidden_AF, hidden_AF).sum(1);
    const at::Tensor grad_weights_SK =
        grad_weight_A.index_select(0, place_A).view_as(weights_SK).to(weights_SK.scalar_type());
    grad_hidden_AF.mul_(weight_A);
    const at::Tensor grad_down =
        grouped_weight_grad(grad_AD.mul(weight_A), hidden_AF, components).to(component_down.scalar_type());

    at::Tensor grad_x_SD = at::zeros_like(x_SD), grad_bank, grad_unique;
    if (has_unique) {
      const at::Tensor grad_pre = swiglu_backward(unique_pre_A2F, grad_hidden_AF.narrow(1, base, unique));
      grad_unique =
          grouped_weight_grad(grad_pre, x_SD.index_select(0, token_A), components).to(component_gate_up.scalar_type());
      grad_x_SD.add_(gather_sum(grouped_linear(grad_pre, component_gate_up.to(dtype), components, false),
                                place_A.view_as(weights_SK)));
    }
    if (has_banks) {
      const Groups banks = groups(bank_gate_up, saved[16], saved[17]);
      const at::Tensor grad_base = gather_sum(with_zero_row(grad_hidden_AF.narrow(1, 0, base)), bank_readers_PK);
      const at::Tensor grad_pre = swiglu_backward(bank_pre_P2F, grad_base);
      grad_bank =
          grouped_weight_grad(grad_pre, x_SD.index_select(0, bank_token_P), banks).to(bank_gate_up.scalar_type());
      grad_x_SD.add_(
          gather_sum(with_zero_row(grouped_linear(grad_pre, bank_gate_up.to(dtype), banks, false)), bank_rows_SK));
    }
    return {grad_x_SD, {}, grad_weights_SK, grad_bank, grad_unique, grad_down, {}};
  }
};

}  // namespace

at::Tensor component_layer(const at::Tensor& x_SD, const at::Tensor& ids_SK, const at::Tensor& weights_SK,
                           const ComponentWeights& weights) {
  TESSERA_CHECK(ids_SK.scalar_type() == at::kLong && ids_SK.sizes() == weights_SK.sizes(),
                "ids and weights must be [S, K]");
  // The autograd machinery wants tensors, so an absent stack travels as an empty one.
  auto stack = [&](const at::Tensor& tensor) { return tensor.defined() ? tensor : at::empty({0}, x_SD.options()); };
  const ComponentWeights all = {stack(weights.bank_gate_up), stack(weights.component_gate_up), weights.component_down,
                                weights.bank_of};
  if (uses_kernels(x_SD)) return component_layer_cpu(x_SD, ids_SK, weights_SK, all);
  return ComponentLayerFunction::apply(x_SD, ids_SK, weights_SK, all.bank_gate_up, all.component_gate_up,
                                       all.component_down, all.bank_of);
}

}  // namespace tessera
