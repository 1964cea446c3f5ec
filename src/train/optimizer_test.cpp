#include "train/optimizer.h"

#include <gtest/gtest.h>

#include "train/precompiled.h"
#include "train/tiny_model.h"

namespace tessera {
namespace {

// Each learnt parameter's change after one step on the loss sum(parameter^2) / 2, whose gradient is the parameter.
std::map<std::string, at::Tensor> changes_after_a_step(const OptimizerConfig& config, double lr) {
  const Parameters parameters(tiny_architecture(), 3);
  Optimizer optimizer(parameters, config);
  std::map<std::string, at::Tensor> change;
  for (const std::string& name : parameters.learnt_names()) {
    at::Tensor parameter = parameters[name];
    parameter.mutable_grad() = parameter.detach().clone();
    change[name] = parameter.detach().clone();
  }
  optimizer.step(lr);
  for (auto& [name, before] : change) before = parameters[name].detach() - before;
  return change;
}

TEST(Optimizer, FirstAdamwStepIsTheSignOfTheGradient) {
  OptimizerConfig config;
  config.weight_decay = 0;
  config.embedding_lr_scale = 3;
  for (const auto& [name, change] : changes_after_a_step(config, 0.01)) {
    EXPECT_NEAR(change.abs().max().item<double>(), name == "embedding" ? 0.03 : 0.01, 1e-4) << name;
  }
}

TEST(Optimizer, WeightDecayIsForMatricesAlone) {
  OptimizerConfig none, some;
  none.weight_decay = 0;
  some.weight_decay = 0.5;
  const auto without = changes_after_a_step(none, 0.01), with = changes_after_a_step(some, 0.01);
  for (const auto& [name, change] : without) {
    const bool same = at::allclose(change, with.at(name), 0, 1e-9);
    EXPECT_EQ(same, change.dim() == 1) << name;
  }
}

TEST(Optimizer, MuonsUpdateIsNearlyOrthogonalWithTheSizeOfAdamws) {
  OptimizerConfig config;
  config.kind = "muon";
  config.weight_decay = 0;
  const at::Tensor change = changes_after_a_step(config, 0.01).at("layers.0.attention.query");  // 16 x 16
  const at::Tensor singular = at::linalg_svdvals(change / (0.01 * 0.2 * 4));
  EXPECT_GT(singular.min().item<double>(), 0.3);
  EXPECT_LT(singular.max().item<double>(), 1.3);
}

TEST(Optimizer, OrthogonalisesStacksOfTallAndWideMatrices) {
  at::manual_seed(2);
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{3, 20, 8}, {3, 8, 20}}) {
    const at::Tensor q = orthogonalised(at::randn(shape));
    ASSERT_EQ(q.sizes(), at::IntArrayRef(shape));
    const at::Tensor singular = at::linalg_svdvals(q);
    EXPECT_GT(singular.min().item<double>(), 0.6);
    EXPECT_LT(singular.max().item<double>(), 1.3);
  }
}

TEST(Optimizer, ClipsTheWholeGradient) {
  const Parameters parameters(tiny_architecture(), 3);
  OptimizerConfig config;
  config.clip_norm = 0.5;
  Optimizer optimizer(parameters, config);
  at::Tensor embedding = parameters["embedding"];
  embedding.mutable_grad() = at::ones_like(embedding);
  EXPECT_NEAR(optimizer.clip_gradients(), std::sqrt(50.0 * 16), 1e-3);
  optimizer.step(0.01);
  const double clipped = 0.5 / std::sqrt(50.0 * 16);
  EXPECT_NEAR(optimizer.state().at("embedding.m").max().item<double>(), (1 - config.beta1) * clipped, 1e-7);
  EXPECT_FALSE(embedding.grad().defined());
}

}  // namespace
}  // namespace tessera
