#include "train/optimizer.h"

#include <gtest/gtest.h>

#include "train/precompiled.h"
#include "train/tiny_model.h"

namespace tessera {
namespace {

// Each learnt parameter's change after one step on the loss sum(parameter^2) / 2, whose gradient is the parameter.
std::map<std::string, at::Tensor> changes_after_a_step(const OptimizerConfig& config, double lr,
                                                       at::ScalarType dtype = at::kFloat) {
  const Parameters parameters(tiny_architecture(), 3, dtype);
  Optimizer optimizer(parameters, config);
  std::map<std::string, at::Tensor> change;
  for (const std::string& name : parameters.learnt_names()) {
    at::Tensor parameter = parameters[name];
    parameter.mutable_grad() = parameter.detach().clone();
    change[name] = parameter.detach().clone();
  }
  optimizer.clip_gradients();
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

// f64 takes LibTorch's fused AdamW, as CUDA does, f32 our kernel.
TEST(Optimizer, KernelsAndTensorOperationsAgree) {
  for (const char* kind : {"adamw", "muon"}) {
    OptimizerConfig config;
    config.kind = kind;
    config.clip_norm = 0.1;
    config.eps = 0.01;  // so that the gradient's size matters
    const auto f32 = changes_after_a_step(config, 0.01), f64 = changes_after_a_step(config, 0.01, at::kDouble);
    ASSERT_EQ(f32.size(), f64.size());
    for (const auto& [name, change] : f32) {
      const double distance = (change.to(at::kDouble) - f64.at(name)).abs().max().item<double>();
      EXPECT_LT(distance, 2e-5) << kind << " " << name;
    }
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
  config.beta1 = 0;  // so that the first moment is the gradient
  Optimizer optimizer(parameters, config);
  at::Tensor embedding = parameters["embedding"];
  embedding.mutable_grad() = at::ones_like(embedding);
  EXPECT_NEAR(optimizer.clip_gradients(), std::sqrt(50.0 * 16), 1e-3);
  optimizer.step(0.01);
  EXPECT_NEAR(optimizer.state().at("embedding.m").norm().item<double>(), 0.5, 1e-5);
}

TEST(Optimizer, ClipsForOneStep) {
  for (const char* kind : {"adamw", "muon"}) {
    const Parameters parameters(tiny_architecture(), 3);
    OptimizerConfig config;
    config.kind = kind;
    config.clip_norm = 0.5;
    Optimizer optimizer(parameters, config);
    const std::string name = "layers.0.attention.query";  // 16 x 16; Muon's, where there is Muon
    at::Tensor parameter = parameters[name];
    const double new_share = config.kind == "muon" ? 1 : 1 - config.beta1,
                 kept = config.kind == "muon" ? 0.95 : config.beta1;
    parameter.mutable_grad() = at::ones_like(parameter);
    EXPECT_NEAR(optimizer.clip_gradients(), 16, 1e-4);
    optimizer.step(0.01);
    const double first = new_share * 0.5 / 16;
    EXPECT_NEAR(optimizer.state().at(name + ".m").max().item<double>(), first, 1e-7) << kind;
    EXPECT_FALSE(parameter.grad().defined());
    for (const std::string& other : parameters.learnt_names()) {
      at::Tensor p = parameters[other];
      p.mutable_grad() = at::full_like(p, 1e-4);
    }
    optimizer.step(0.01);  // as they are
    EXPECT_NEAR(optimizer.state().at(name + ".m").max().item<double>(), kept * first + new_share * 1e-4, 1e-7) << kind;
  }
}

}  // namespace
}  // namespace tessera
