#include "train/component_layer.h"

#include <gtest/gtest.h>

#include "train/precompiled.h"

namespace tessera {
namespace {

constexpr int kTokens = 11, kWidth = 6, kComponents = 7, kActive = 3;

struct Case {
  at::Tensor x, ids, weights;
  ComponentWeights stack;
};

Case random_case(int num_banks, int base_width, int unique_width) {
  at::manual_seed(7);
  const auto options = at::TensorOptions(at::kDouble);
  Case c;
  c.x = at::randn({kTokens, kWidth}, options).requires_grad_(true);
  c.ids = at::stack({at::randint(0, 2, {kTokens}), at::randint(2, 4, {kTokens}), at::randint(4, 6, {kTokens})},
                    1);  // component 6 is never chosen
  c.weights = at::softmax(at::randn({kTokens, kActive}, options), 1).detach().requires_grad_(true);
  if (num_banks > 0)
    c.stack.bank_gate_up = at::randn({num_banks, 2 * base_width, kWidth}, options).requires_grad_(true);
  if (unique_width > 0)
    c.stack.component_gate_up = at::randn({kComponents, 2 * unique_width, kWidth}, options).requires_grad_(true);
  c.stack.component_down = at::randn({kComponents, kWidth, base_width + unique_width}, options).requires_grad_(true);
  for (int i = 0; i < kComponents; ++i) c.stack.bank_of.push_back(num_banks > 0 ? i % num_banks : -1);
  return c;
}

// DESIGN section 2's equations, one token and one component at a time, on plain doubles.
std::vector<double> loop_reference(const Case& c) {
  auto value = [](const at::Tensor& t) { return t.detach().contiguous(); };
  const at::Tensor x = value(c.x), down = value(c.stack.component_down), weights = value(c.weights);
  auto swiglu_unit = [&](const at::Tensor& gate_up, int unit, int token) {  // gate_up [2 F, D]
    const int64_t width = gate_up.size(0) / 2;
    double gate = 0, up = 0;
    for (int d = 0; d < kWidth; ++d) {
      gate += x[token][d].item<double>() * gate_up[unit][d].item<double>();
      up += x[token][d].item<double>() * gate_up[width + unit][d].item<double>();
    }
    return gate / (1 + std::exp(-gate)) * up;
  };
  std::vector<double> y(kTokens * kWidth, 0.0);
  for (int t = 0; t < kTokens; ++t) {
    for (int k = 0; k < kActive; ++k) {
      const int id = static_cast<int>(c.ids[t][k].item<int64_t>());
      std::vector<double> hidden;
      if (c.stack.bank_gate_up.defined()) {
        const at::Tensor bank = value(c.stack.bank_gate_up)[c.stack.bank_of[static_cast<size_t>(id)]];
        for (int f = 0; f < bank.size(0) / 2; ++f) hidden.push_back(swiglu_unit(bank, f, t));
      }
      if (c.stack.component_gate_up.defined()) {
        const at::Tensor own = value(c.stack.component_gate_up)[id];
        for (int f = 0; f < own.size(0) / 2; ++f) hidden.push_back(swiglu_unit(own, f, t));
      }
      for (int d = 0; d < kWidth; ++d) {
        double sum = 0;
        for (size_t f = 0; f < hidden.size(); ++f)
          sum += hidden[f] * down[id][d][static_cast<int64_t>(f)].item<double>();
        y[static_cast<size_t>(t * kWidth + d)] += weights[t][k].item<double>() * sum;
      }
    }
  }
  return y;
}

at::Tensor run(const Case& c) { return component_layer(c.x, c.ids, c.weights, c.stack); }

class ComponentLayer : public testing::TestWithParam<std::array<int, 3>> {};  // banks, Fb, Fu

TEST_P(ComponentLayer, EqualsTheLoopReference) {
  const Case c = random_case(GetParam()[0], GetParam()[1], GetParam()[2]);
  const at::Tensor y = run(c).detach().contiguous();
  const std::vector<double> expected = loop_reference(c);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(y.data_ptr<double>()[i], expected[i], 1e-6) << i;
}

TEST_P(ComponentLayer, GradientsAgreeWithFiniteDifferences) {
  const Case c = random_case(GetParam()[0], GetParam()[1], GetParam()[2]);
  const at::Tensor direction = at::randn({kTokens, kWidth}, at::kDouble);
  std::vector<at::Tensor> inputs = {c.x, c.weights, c.stack.component_down};
  if (c.stack.bank_gate_up.defined()) inputs.push_back(c.stack.bank_gate_up);
  if (c.stack.component_gate_up.defined()) inputs.push_back(c.stack.component_gate_up);
  const auto grads = torch::autograd::grad({(run(c) * direction).sum()}, inputs);
  const at::NoGradGuard no_grad;
  constexpr double kStep = 1e-6;
  for (size_t i = 0; i < inputs.size(); ++i) {
    double* data = inputs[i].data_ptr<double>();
    for (int64_t j = 0; j < inputs[i].numel(); j += 1 + inputs[i].numel() / 37) {
      const double saved = data[j];
      data[j] = saved + kStep;
      const double above = (run(c) * direction).sum().item<double>();
      data[j] = saved - kStep;
      const double below = (run(c) * direction).sum().item<double>();
      data[j] = saved;
      EXPECT_NEAR(grads[i].contiguous().data_ptr<double>()[j], (above - below) / (2 * kStep), 1e-5)
          << "input " << i << " element " << j;
    }
  }
}

TEST_P(ComponentLayer, WhatIsNotChosenDoesNotMatter) {
  const Case c = random_case(GetParam()[0], GetParam()[1], GetParam()[2]);
  const at::Tensor before = run(c).detach();
  {
    const at::NoGradGuard no_grad;
    c.stack.component_down[6].fill_(std::numeric_limits<double>::quiet_NaN());
    if (c.stack.component_gate_up.defined())
      c.stack.component_gate_up[6].fill_(std::numeric_limits<double>::quiet_NaN());
  }
  EXPECT_TRUE(at::equal(run(c).detach(), before));
}

INSTANTIATE_TEST_SUITE_P(Shapes, ComponentLayer,
                         testing::Values(std::array{3, 4, 5}, std::array{2, 4, 0}, std::array{0, 0, 5},
                                         std::array{1, 3, 2}));

}  // namespace
}  // namespace tessera
