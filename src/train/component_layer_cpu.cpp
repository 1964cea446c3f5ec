// The component layer on the CPU kernels: a task is a component (or a bank), its rows in blocks that stay in the cache,
// each block going through gather, products and SwiGLU before the next. No product is split over threads.
#include <cstring>

#include "base/error.h"
#include "kernels/elementwise.h"
#include "train/component_layer.h"
#include "train/products.h"
#include "train/section_timer.h"
#include "train/tasks.h"

namespace tessera {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

constexpr int64_t kBlockRows = 256;

// Where the work lies. An assignment is (token, k); sorted by component they take places [0, A). A pair is (bank,
// token), sorted by bank.
struct Plan : torch::CustomClassHolder {
  int64_t num_tokens = 0, num_active = 0, num_components = 0, num_banks = 0;
  std::vector<int32_t> place_SK, token_A;
  std::vector<int64_t> component_offsets;  // [N + 1] into places
  std::vector<int32_t> pair_SK, token_P;
  std::vector<int64_t> bank_offsets;  // [G + 1] into pairs

  int64_t num_assignments() const { return num_tokens * num_active; }
  int64_t num_pairs() const { return static_cast<int64_t>(token_P.size()); }
};

c10::intrusive_ptr<Plan> make_plan(const at::Tensor& ids_SK, int64_t num_components, int64_t num_banks,
                                   const std::vector<int>& bank_of) {
  auto plan = c10::make_intrusive<Plan>();
  Plan& p = *plan;
  p.num_tokens = ids_SK.size(0), p.num_active = ids_SK.size(1);
  p.num_components = num_components, p.num_banks = num_banks;
  const size_t num_assignments = static_cast<size_t>(p.num_assignments());
  const int64_t* ids = ids_SK.const_data_ptr<int64_t>();
  p.component_offsets.assign(static_cast<size_t>(num_components) + 1, 0);
  for (size_t a = 0; a < num_assignments; ++a) {
    TESSERA_CHECK(ids[a] >= 0 && ids[a] < num_components, "component id out of range");
    ++p.component_offsets[static_cast<size_t>(ids[a]) + 1];
  }
  for (size_t c = 1; c < p.component_offsets.size(); ++c) p.component_offsets[c] += p.component_offsets[c - 1];
  std::vector<int64_t> next = p.component_offsets;
  p.place_SK.resize(num_assignments), p.token_A.resize(num_assignments);
  for (size_t a = 0; a < num_assignments; ++a) {
    const int64_t place = next[static_cast<size_t>(ids[a])]++;
    p.place_SK[a] = static_cast<int32_t>(place);
    p.token_A[static_cast<size_t>(place)] = static_cast<int32_t>(static_cast<int64_t>(a) / p.num_active);
  }
  if (num_banks == 0) return plan;
  // Two components of a token may share a bank: then they share the pair.
  std::vector<std::vector<int32_t>> tokens_of_bank(static_cast<size_t>(num_banks));
  p.pair_SK.resize(num_assignments);
  for (size_t a = 0; a < num_assignments; ++a) {
    std::vector<int32_t>& tokens = tokens_of_bank[static_cast<size_t>(bank_of[static_cast<size_t>(ids[a])])];
    const int32_t token = static_cast<int32_t>(static_cast<int64_t>(a) / p.num_active);
    if (tokens.empty() || tokens.back() != token) tokens.push_back(token);
    p.pair_SK[a] = static_cast<int32_t>(tokens.size()) - 1;  // within its bank, for now
  }
  p.bank_offsets.assign(1, 0);
  for (const std::vector<int32_t>& tokens : tokens_of_bank) {
    p.bank_offsets.push_back(p.bank_offsets.back() + static_cast<int64_t>(tokens.size()));
    p.token_P.insert(p.token_P.end(), tokens.begin(), tokens.end());
  }
  for (size_t a = 0; a < num_assignments; ++a) {
    const size_t bank = static_cast<size_t>(bank_of[static_cast<size_t>(ids[a])]);
    p.pair_SK[a] += static_cast<int32_t>(p.bank_offsets[bank]);
  }
  return plan;
}

// The pair that the assignment at each place reads.
std::vector<int32_t> by_place(const Plan& plan) {
  std::vector<int32_t> pair_A(plan.pair_SK.size());
  for (size_t a = 0; a < pair_A.size(); ++a) pair_A[static_cast<size_t>(plan.place_SK[a])] = plan.pair_SK[a];
  return pair_A;
}

// A block of rows of one group (component or bank).
struct Block {
  int64_t group, first, count;
};

template <class Body>
void for_each_block(int64_t group, const std::vector<int64_t>& offsets, const Body& body) {
  const int64_t end = offsets[static_cast<size_t>(group) + 1];
  for (int64_t first = offsets[static_cast<size_t>(group)]; first < end; first += kBlockRows)
    body(Block{group, first, std::min(kBlockRows, end - first)});
}

std::vector<Block> all_blocks(const std::vector<int64_t>& offsets) {
  std::vector<Block> blocks;
  for (size_t g = 0; g + 1 < offsets.size(); ++g)
    for_each_block(static_cast<int64_t>(g), offsets, [&](const Block& block) { blocks.push_back(block); });
  return blocks;
}

// Groups by falling number of rows, so that no thread is left with a long one at the end.
std::vector<int64_t> largest_first(const std::vector<int64_t>& offsets) {
  std::vector<int64_t> groups(offsets.size() - 1);
  for (size_t g = 0; g < groups.size(); ++g) groups[g] = static_cast<int64_t>(g);
  auto rows = [&](int64_t g) { return offsets[static_cast<size_t>(g) + 1] - offsets[static_cast<size_t>(g)]; };
  std::stable_sort(groups.begin(), groups.end(), [&](int64_t a, int64_t b) { return rows(a) > rows(b); });
  return groups;
}

// Pointers of a stack [groups, rows, columns] of matrices.
struct Stack {
  float* data = nullptr;
  int64_t rows = 0, columns = 0;
  explicit Stack(const at::Tensor& t)
      : data(t.numel() > 0 ? t.mutable_data_ptr<float>() : nullptr),
        rows(t.dim() == 3 ? t.size(1) : 0),
        columns(t.dim() == 3 ? t.size(2) : 0) {}
  float* of(int64_t group) const { return data + group * rows * columns; }
};

// Where a stack's gradient goes: into the one that it has, or into a new tensor that backward returns.
struct StackGrad {
  bool adds;
  at::Tensor tensor;
  Stack to;
  explicit StackGrad(const at::Tensor& stack)
      : adds(stack.is_leaf() && stack.requires_grad() && stack.grad().defined()),
        tensor(adds ? stack.grad() : at::empty_like(stack)),
        to(tensor) {
    TESSERA_CHECK(tensor.is_contiguous(), "a gradient that is added to must be contiguous");
  }
  float keep(bool first_block) const { return first_block && !adds ? 0.0f : 1.0f; }  // of what is there
  void set_unused(int64_t group) const {
    if (!adds && to.data) std::fill_n(to.of(group), to.rows * to.columns, 0.0f);
  }
  Variable returned() const { return adds || !to.data ? Variable() : tensor; }
};

struct ComponentLayerCpu : torch::autograd::Function<ComponentLayerCpu> {
  static Variable forward(AutogradContext* context, const Variable& x_SD, const Variable& ids_SK,
                          const Variable& weights_SK, const Variable& bank_gate_up, const Variable& component_gate_up,
                          const Variable& component_down, const std::vector<int>& bank_of) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("component layer forward");
    const bool in_bf16 = multiplies_bf16(x_SD.scalar_type());
    const FactorTensor x(x_SD, in_bf16);
    const at::Tensor p_tensor = as_f32(weights_SK);
    const auto f32 = x_SD.options().dtype(at::kFloat);
    const Stack bank(bank_gate_up), unique(component_gate_up), down(component_down);
    const auto plan =
        make_plan(ids_SK.contiguous(), component_down.size(0), bank.data ? bank_gate_up.size(0) : 0, bank_of);
    const int64_t width = x_SD.size(1), base_width = bank.rows / 2, unique_width = unique.rows / 2;
    const int64_t hidden_width = base_width + unique_width;
    const float* p = p_tensor.const_data_ptr<float>();

    const at::Tensor bank_pre = at::empty({plan->num_pairs(), 2 * base_width}, f32);
    const at::Tensor bank_hidden = at::empty({plan->num_pairs(), base_width}, f32);
    float* bank_pre_P = bank_pre.mutable_data_ptr<float>();
    float* bank_hidden_P = bank_hidden.mutable_data_ptr<float>();
    if (bank.data) {
      const std::vector<Block> blocks = all_blocks(plan->bank_offsets);
      for_each_task(static_cast<int64_t>(blocks.size()), [&](int64_t task) {
        const Block& b = blocks[static_cast<size_t>(task)];
        const Factor rows = x.gathered(&plan->token_P[static_cast<size_t>(b.first)], b.count, width, 0);
        float* pre = bank_pre_P + b.first * bank.rows;
        product(in_bf16, b.count, bank.rows, width, rows, {bank.of(b.group), width, true}, pre, bank.rows);
        swiglu_forward(pre, b.count, base_width, bank_hidden_P + b.first * base_width, base_width);
      });
    }

    const at::Tensor unique_pre = at::empty({plan->num_assignments(), unique.rows}, f32);
    const at::Tensor y_A = at::empty({plan->num_assignments(), width}, f32);
    float* unique_pre_A = unique_pre.mutable_data_ptr<float>();
    float* y = y_A.mutable_data_ptr<float>();
    std::vector<int32_t> pair_A = by_place(*plan);
    const std::vector<Block> blocks = all_blocks(plan->component_offsets);
    for_each_task(static_cast<int64_t>(blocks.size()), [&](int64_t task) {
      const Block& b = blocks[static_cast<size_t>(task)];
      float* hidden = scratch(1, kBlockRows * hidden_width);
      for (int64_t i = 0; i < b.count && base_width > 0; ++i) {
        std::memcpy(hidden + i * hidden_width, bank_hidden_P + pair_A[static_cast<size_t>(b.first + i)] * base_width,
                    static_cast<size_t>(base_width) * sizeof(float));
      }
      if (unique.data) {
        const Factor rows = x.gathered(&plan->token_A[static_cast<size_t>(b.first)], b.count, width, 0);
        float* pre = unique_pre_A + b.first * unique.rows;
        product(in_bf16, b.count, unique.rows, width, rows, {unique.of(b.group), width, true}, pre, unique.rows);
        swiglu_forward(pre, b.count, unique_width, hidden + base_width, hidden_width);
      }
      product(in_bf16, b.count, width, hidden_width, {hidden, hidden_width}, {down.of(b.group), hidden_width, true},
              y + b.first * width, width);
    });

    const at::Tensor y_SD = at::empty(x_SD.sizes(), f32);
    float* out = y_SD.mutable_data_ptr<float>();
    const int64_t k = plan->num_active;
    for_each_row_block(plan->num_tokens, kBlockRows, [&](int64_t first, int64_t count) {
      for (int64_t a = first * k; a < (first + count) * k; ++a) {
        float* to = out + a / k * width;
        if (a % k == 0) std::fill_n(to, width, 0.0f);
        axpy(p[a], y + plan->place_SK[static_cast<size_t>(a)] * width, to, width);
      }
    });

    // What the banks give is kept too: several components read it in the gradient. swiglu_backward gives their own.
    const at::ScalarType kept = x_SD.scalar_type();
    context->save_for_backward({x_SD, weights_SK, bank_gate_up, component_gate_up, component_down, bank_pre.to(kept),
                                unique_pre.to(kept), bank_hidden.to(kept)});
    context->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return y_SD.to(kept);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const SectionTimer timer("component layer backward");
    const auto saved = context->get_saved_variables();
    const auto held = context->saved_data["plan"].toCapsule();
    const Plan& plan = static_cast<const Plan&>(*held);
    const Stack bank(saved[2]), unique(saved[3]), down(saved[4]);
    const int64_t width = saved[0].size(1), base_width = bank.rows / 2, unique_width = unique.rows / 2;
    const int64_t hidden_width = base_width + unique_width, k = plan.num_active;
    const bool in_bf16 = multiplies_bf16(saved[0].scalar_type());
    const FactorTensor grad_y(grads[0], in_bf16), x(saved[0], in_bf16);
    const at::Tensor p_tensor = as_f32(saved[1]);
    const at::Tensor bank_pre = as_f32(saved[5]), unique_pre = as_f32(saved[6]), bank_hidden = as_f32(saved[7]);
    const float* p = p_tensor.const_data_ptr<float>();
    const float *bank_pre_P = bank_pre.const_data_ptr<float>(), *unique_pre_A = unique_pre.const_data_ptr<float>();
    const float* bank_hidden_P = bank_hidden.const_data_ptr<float>();
    const auto options = p_tensor.options();

    const StackGrad grad_bank(saved[2]), grad_unique(saved[3]), grad_down(saved[4]);
    const at::Tensor grad_p = at::empty_like(p_tensor);
    const at::Tensor grad_base_tensor = at::empty({plan.num_assignments(), base_width}, options);
    const at::Tensor grad_x_A_tensor = at::empty({unique.data ? plan.num_assignments() : 0, width}, options);
    const at::Tensor grad_x_P_tensor = at::empty({plan.num_pairs(), width}, options);
    float* grad_base_A = grad_base_tensor.mutable_data_ptr<float>();
    float *grad_x_A = grad_x_A_tensor.mutable_data_ptr<float>(), *grad_x_P = grad_x_P_tensor.mutable_data_ptr<float>();
    std::vector<float> p_A(static_cast<size_t>(plan.num_assignments())), grad_p_A(p_A.size());
    for (size_t a = 0; a < p_A.size(); ++a) p_A[static_cast<size_t>(plan.place_SK[a])] = p[a];
    const std::vector<int32_t> pair_A = by_place(plan);

    const std::vector<int64_t> components = largest_first(plan.component_offsets);
    for_each_task(plan.num_components, [&](int64_t task) {
      const int64_t c = components[static_cast<size_t>(task)];
      bool first = true;  // the first block overwrites, the others add
      for_each_block(c, plan.component_offsets, [&](const Block& b) {
        const int32_t* tokens = &plan.token_A[static_cast<size_t>(b.first)];
        float *hidden = scratch(1, kBlockRows * hidden_width), *grad_hidden = scratch(3, kBlockRows * hidden_width);
        const float* weight = &p_A[static_cast<size_t>(b.first)];
        float* grad_weight = &grad_p_A[static_cast<size_t>(b.first)];
        const Factor grad_rows = grad_y.gathered(tokens, b.count, width, 2);
        // Without the weight: <grad, y_c> = <h, W_c^T grad> is the gradient of the weight.
        product(in_bf16, b.count, hidden_width, width, grad_rows, {down.of(c), hidden_width}, grad_hidden,
                hidden_width);
        for (int64_t i = 0; i < b.count && base_width > 0; ++i) {
          const float* base = bank_hidden_P + pair_A[static_cast<size_t>(b.first + i)] * base_width;
          const float* grad = grad_hidden + i * hidden_width;
          std::memcpy(hidden + i * hidden_width, base, static_cast<size_t>(base_width) * sizeof(float));
          grad_weight[i] = dot(grad, base, base_width);
          float* to = grad_base_A + (b.first + i) * base_width;
          std::fill_n(to, base_width, 0.0f);
          axpy(weight[i], grad, to, base_width);
        }
        if (unique.data) {
          float* grad_pre = scratch(4, kBlockRows * unique.rows);
          swiglu_backward(unique_pre_A + b.first * unique.rows, grad_hidden + base_width, hidden_width, b.count,
                          unique_width, weight, grad_pre, hidden + base_width, hidden_width, grad_weight);
          const Factor pre = rounded(in_bf16, {grad_pre, unique.rows}, b.count, unique.rows, 5);
          product(in_bf16, unique.rows, width, b.count, pre.turned(), x.gathered(tokens, b.count, width, 0),
                  grad_unique.to.of(c), width, grad_unique.keep(first));
          product(in_bf16, b.count, width, unique.rows, pre, {unique.of(c), width}, grad_x_A + b.first * width, width);
        }
        for (int64_t i = 0; i < b.count; ++i) {
          float* row = hidden + i * hidden_width;
          for (int64_t j = 0; j < hidden_width; ++j) row[j] *= weight[i];
        }
        product(in_bf16, width, hidden_width, b.count, grad_rows.turned(), {hidden, hidden_width}, grad_down.to.of(c),
                hidden_width, grad_down.keep(first));
        first = false;
      });
      if (first) grad_down.set_unused(c), grad_unique.set_unused(c);  // no token chose it
    });

    if (bank.data) {
      // The assignments of each pair: at most K, and the places of its token's components that read this bank.
      const std::vector<int64_t> banks = largest_first(plan.bank_offsets);
      for_each_task(plan.num_banks, [&](int64_t task) {
        const int64_t g = banks[static_cast<size_t>(task)];
        bool first = true;
        for_each_block(g, plan.bank_offsets, [&](const Block& b) {
          const int32_t* tokens = &plan.token_P[static_cast<size_t>(b.first)];
          float* grad = scratch(1, kBlockRows * base_width);
          float* grad_pre = scratch(2, kBlockRows * bank.rows);
          std::fill_n(grad, b.count * base_width, 0.0f);
          for (int64_t i = 0; i < b.count; ++i) {
            for (int64_t a = tokens[i] * k; a < (tokens[i] + 1) * k; ++a) {
              if (plan.pair_SK[static_cast<size_t>(a)] == b.first + i)
                axpy(1, grad_base_A + plan.place_SK[static_cast<size_t>(a)] * base_width, grad + i * base_width,
                     base_width);
            }
          }
          swiglu_backward(bank_pre_P + b.first * bank.rows, grad, base_width, b.count, base_width, nullptr, grad_pre,
                          nullptr, 0, nullptr);
          const Factor pre = rounded(in_bf16, {grad_pre, bank.rows}, b.count, bank.rows, 5);
          product(in_bf16, bank.rows, width, b.count, pre.turned(), x.gathered(tokens, b.count, width, 0),
                  grad_bank.to.of(g), width, grad_bank.keep(first));
          product(in_bf16, b.count, width, bank.rows, pre, {bank.of(g), width}, grad_x_P + b.first * width, width);
          first = false;
        });
        if (first) grad_bank.set_unused(g);
      });
    }

    const at::Tensor grad_x_SD = at::empty(saved[0].sizes(), options);
    float *grad_x = grad_x_SD.mutable_data_ptr<float>(), *grad_p_SK = grad_p.mutable_data_ptr<float>();
    for_each_row_block(plan.num_tokens, kBlockRows, [&](int64_t first, int64_t count) {
      for (int64_t s = first; s < first + count; ++s) {
        float* to = grad_x + s * width;
        std::fill_n(to, width, 0.0f);
        for (int64_t a = s * k; a < (s + 1) * k; ++a) {
          const int32_t place = plan.place_SK[static_cast<size_t>(a)];
          grad_p_SK[a] = grad_p_A[static_cast<size_t>(place)];
          if (unique.data) axpy(1, grad_x_A + place * width, to, width);
          if (!bank.data) continue;
          const int32_t pair = plan.pair_SK[static_cast<size_t>(a)];
          const auto begin = plan.pair_SK.begin() + s * k, here = plan.pair_SK.begin() + a;
          if (std::find(begin, here, pair) == here) axpy(1, grad_x_P + pair * width, to, width);
        }
      }
    });
    return {grad_x_SD.to(saved[0].scalar_type()),
            {},
            grad_p.to(saved[1].scalar_type()),
            grad_bank.returned(),
            grad_unique.returned(),
            grad_down.returned(),
            {}};
  }
};

}  // namespace

at::Tensor component_layer_cpu(const at::Tensor& x_SD, const at::Tensor& ids_SK, const at::Tensor& weights_SK,
                               const ComponentWeights& weights) {
  return ComponentLayerCpu::apply(x_SD, ids_SK, weights_SK, weights.bank_gate_up, weights.component_gate_up,
                                  weights.component_down, weights.bank_of);
}

}  // namespace tessera
