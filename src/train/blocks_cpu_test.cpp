// The CPU kernels in f32 and bf16 against the plain tensor operations in f64: values and gradients.
#include "train/blocks_cpu.h"

#include <gtest/gtest.h>

#include "train/component_layer.h"
#include "train/losses.h"
#include "train/precompiled.h"

namespace tessera {
namespace {

using Inputs = std::vector<at::Tensor>;

// Runs `function` on the inputs in f32, with the first in bf16, and in f64, and compares the value and the gradient of
// every input. In f32 two backward passes must add up.
void expect_same(const Inputs& inputs, const std::function<at::Tensor(const Inputs&)>& function) {
  auto run = [&](at::ScalarType dtype) {
    Inputs leaves;
    for (const at::Tensor& input : inputs) {
      const bool is_weight = dtype == at::kBFloat16 && !leaves.empty();
      leaves.push_back(input.to(is_weight ? at::kFloat : dtype).detach().requires_grad_(true));
    }
    const at::Tensor value = function(leaves);
    at::manual_seed(11);
    const at::Tensor direction = at::randn(value.sizes(), at::kDouble).to(dtype);
    std::vector<at::Tensor> all = {value.detach()};
    if (dtype == at::kFloat) {
      for (int pass = 0; pass < 2; ++pass) torch::autograd::backward({(function(leaves) * direction).sum()}, {});
      for (const at::Tensor& leaf : leaves) all.push_back(leaf.grad() / 2);
    } else {
      for (const at::Tensor& grad : torch::autograd::grad({(value * direction).sum()}, leaves)) all.push_back(grad);
    }
    return all;
  };
  const std::vector<at::Tensor> got = run(at::kFloat), expected = run(at::kDouble), rounded = run(at::kBFloat16);
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = (got[i].to(at::kDouble) - expected[i]).abs().max().item<double>();
    const double size = expected[i].abs().max().item<double>();
    const std::string what = i == 0 ? "value" : "gradient of input " + std::to_string(i - 1);
    EXPECT_LT(error, 2e-5 * (1 + size)) << what;
    const double distance = (rounded[i].to(at::kDouble) - expected[i]).norm().item<double>();
    EXPECT_LT(distance, 0.02 * (1e-6 + expected[i].norm().item<double>())) << what << " in bf16";
  }
}

at::Tensor random(at::IntArrayRef sizes) { return at::randn(sizes, at::kDouble); }

TEST(BlocksCpu, ProjectNormSwiglu) {
  at::manual_seed(1);
  expect_same({random({3, 201, 24}), random({40, 24})}, [](const Inputs& in) { return project(in[0], in[1]); });
  expect_same({random({3, 201, 24}), random({24})}, [](const Inputs& in) { return rms_norm(in[0], in[1], 1e-5); });
  expect_same({random({3, 201, 26})}, [](const Inputs& in) { return swiglu(in[0]); });
}

TEST(BlocksCpu, AttentionOfPackedRows) {
  at::manual_seed(2);
  constexpr int kRows = 2, kTokens = 140, kWidth = 24, kHeads = 4, kKvHeads = 2;
  const at::Tensor t = at::arange(kTokens).expand({kRows, kTokens});
  const at::Tensor starts = at::where(t >= 50, 50, 0),
                   ends = at::minimum((t.div(16, "floor") + 1) * 16, at::where(t >= 50, kTokens, 50));
  for (bool block : {false, true}) {
    expect_same({random({kRows, kTokens, kWidth}), random({kWidth, kWidth}) * 0.3, random({kWidth / 2, kWidth}) * 0.3,
                 random({kWidth / 2, kWidth}), random({kWidth, kWidth})},
                [&](const Inputs& in) {
                  const Visible visible = block ? block_causal(starts, ends, 30, in[0]) : causal(starts, in[0]);
                  const Rotary rope = rotary(t - starts, kWidth / kHeads, 10000, in[0].scalar_type());
                  return attention(in[0], {in[1], in[2], in[3], in[4]}, kHeads, kKvHeads, rope, visible);
                });
  }
}

// Components with more rows than a block, one without any, and two that share a bank for one token.
class ComponentLayerCpu : public testing::TestWithParam<std::array<int, 3>> {};  // banks, Fb, Fu

TEST_P(ComponentLayerCpu, EqualsTheTensorOperations) {
  const auto [banks, base, unique] = GetParam();
  constexpr int kTokens = 700, kWidth = 20, kComponents = 6;
  at::manual_seed(3);
  const at::Tensor ids = at::stack({at::randint(0, 2, {kTokens}), at::randint(2, 5, {kTokens})}, 1);
  Inputs inputs = {random({kTokens, kWidth}), at::softmax(random({kTokens, 2}), 1),
                   random({kComponents, kWidth, base + unique})};
  if (banks > 0) inputs.push_back(random({banks, 2 * base, kWidth}) * 0.3);
  if (unique > 0) inputs.push_back(random({kComponents, 2 * unique, kWidth}) * 0.3);
  expect_same(inputs, [&, banks = banks](const Inputs& in) {
    ComponentWeights weights;
    weights.component_down = in[2];
    if (banks > 0) weights.bank_gate_up = in[3];
    if (GetParam()[2] > 0) weights.component_gate_up = in.back();
    for (int c = 0; c < kComponents; ++c) weights.bank_of.push_back(banks > 0 ? c % banks : -1);
    return component_layer(in[0], ids, in[1], weights);
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, ComponentLayerCpu,
                         testing::Values(std::array{3, 4, 5}, std::array{2, 4, 0}, std::array{0, 0, 5},
                                         std::array{1, 3, 2}));

// What the second micro-batch doesn't choose keeps its gradient of the first, and the other way round.
TEST(BlocksCpu, MicroBatchesOfOtherComponentsAddUp) {
  constexpr int kTokens = 40, kWidth = 8, kBanks = 3;
  at::manual_seed(6);
  const at::Tensor x = random({kTokens, kWidth}), direction = random({kTokens, kWidth}), p = random({kTokens, 2}).abs();
  const Inputs stacks = {random({kBanks, 8, kWidth}), random({6, 6, kWidth}), random({6, kWidth, 7})};
  const at::Tensor all = at::stack({at::randint(0, 3, {kTokens}), at::randint(3, 6, {kTokens})}, 1);
  const at::Tensor few = at::tensor({2, 5}, at::kLong).expand({kTokens, 2}).contiguous();  // of bank 2
  for (const bool few_first : {false, true}) {
    std::vector<Inputs> grads;
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      Inputs leaves;
      const at::ScalarType stored = dtype == at::kDouble ? dtype : at::kFloat;
      for (const at::Tensor& stack : stacks) leaves.push_back(stack.to(stored).detach().requires_grad_(true));
      for (const bool is_few : {few_first, !few_first}) {
        const at::Tensor y = component_layer(x.to(dtype), is_few ? few : all, p.to(dtype),
                                             {leaves[0], leaves[1], leaves[2], {0, 1, 2, 0, 1, 2}});
        torch::autograd::backward({(y * direction.to(dtype)).sum()}, {});
      }
      grads.push_back({leaves[0].grad(), leaves[1].grad(), leaves[2].grad()});
    }
    for (size_t i = 0; i < stacks.size(); ++i) {
      EXPECT_TRUE(at::allclose(grads[0][i].to(at::kDouble), grads[2][i], 1e-4, 1e-4)) << i << few_first;
      const double distance = (grads[1][i].to(at::kDouble) - grads[2][i]).norm().item<double>();
      EXPECT_LT(distance, 0.02 * grads[2][i].norm().item<double>()) << i << few_first;
    }
  }
}

TEST(BlocksCpu, LinearCrossEntropy) {
  at::manual_seed(4);
  at::Tensor targets = at::randint(0, 50, {700});
  targets.slice(0, 0, 9) = -1;
  expect_same({random({700, 24}), random({50, 24})},
              [&](const Inputs& in) { return linear_cross_entropy_sum(in[0], in[1], targets); });
}

}  // namespace
}  // namespace tessera
