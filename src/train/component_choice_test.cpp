#include "train/component_choice.h"

#include <gtest/gtest.h>

#include <limits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "train/precompiled.h"

namespace tessera {
namespace {

TEST(ComponentChoice, TakesTheBestEligible) {
  const at::Tensor scores = at::tensor({3.0, 9.0, 1.0, 2.0, 2.0, 2.0}).view({1, 1, 6});
  const at::Tensor bias = at::tensor({0.0, 0.0, 0.0, 0.5, 0.0, 0.0}).view({1, 6});
  const auto ids = [&](std::vector<int32_t> eligible, int k) {
    const at::Tensor found = choose_components_cpu(scores, bias, {0}, {eligible}, k).ids_SLK.view({-1});
    return std::vector<int64_t>(found.data_ptr<int64_t>(), found.data_ptr<int64_t>() + found.numel());
  };
  EXPECT_EQ(ids({0, 1, 2, 3, 4}, 2), (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(ids({0, 2, 3, 4}, 3), (std::vector<int64_t>{0, 3, 4}));
  EXPECT_EQ(ids({2, 4}, 2), (std::vector<int64_t>{4, 2}));
  EXPECT_EQ(ids({2, 4, 5}, 2), (std::vector<int64_t>{4, 5}));  // of equal ones the first
}

TEST(ComponentChoice, AScoreThatIsNoNumberMakesALossThatIsNone) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    for (const std::vector<double>& values : {std::vector{1.0, nan, 2.0}, {nan, nan, nan}}) {
      const at::Tensor scores = at::tensor(values, type).view({1, 1, 3}).requires_grad_();
      const ComponentChoice choice = choose_components_cpu(scores, at::zeros({1, 3}, type), {0}, {{0, 1, 2}}, 2);
      EXPECT_TRUE(at::isnan(choice.z_loss_L).all().item<bool>());
      EXPECT_NE(choice.ids_SLK[0][0][0].item<int64_t>(), choice.ids_SLK[0][0][1].item<int64_t>());
    }
  }
}

// The same by tensor operations.
ComponentChoice plain(const at::Tensor& scores_SLN, const at::Tensor& bias_LN, const at::Tensor& barred_SN, int k) {
  const at::Tensor eligible = scores_SLN.masked_fill(barred_SN.unsqueeze(1), -std::numeric_limits<double>::infinity());
  const at::Tensor ids = std::get<1>(at::topk(eligible.detach() + bias_LN, k, -1));
  const at::Tensor chosen = scores_SLN.gather(2, ids), log_total = at::logsumexp(eligible, {2});
  return {ids, k == 1 ? at::exp(chosen - log_total.unsqueeze(2)) : at::softmax(chosen, 2), log_total.square().mean(0)};
}

TEST(ComponentChoice, TooFewComponentsAreRefused) {
  EXPECT_THROW(choose_components_cpu(at::zeros({1, 1, 3}), at::zeros({1, 3}), {0}, {{1}}, 2), BugError);
  EXPECT_THROW(choose_components_cpu(at::zeros({2, 1, 3}), at::zeros({1, 3}), {0}, {{1, 2}}, 2), BugError);
}

TEST(ComponentChoice, EqualsTensorOperationsWithItsGradient) {
  constexpr int64_t kTokens = 300, kLayers = 3, kComponents = 21;  // three blocks, odd rests
  std::vector<std::vector<int32_t>> lists = {{0, 1, 2, 3, 4, 9, 10, 20}, {5, 6, 7}, {}};
  for (int32_t c = 0; c < kComponents; ++c) lists[2].push_back(c);
  std::vector<int32_t> chunk_S;
  at::Tensor barred_SN = at::ones({kTokens, kComponents}, at::kBool);
  for (int64_t s = 0; s < kTokens; ++s) {
    chunk_S.push_back(static_cast<int32_t>(s / 7 % 3));
    for (int32_t c : lists[static_cast<size_t>(chunk_S.back())])
      barred_SN.data_ptr<bool>()[s * kComponents + c] = false;
  }
  at::manual_seed(5);
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    const double error = type == at::kDouble ? 1e-13 : 2e-6;
    const at::Tensor bias = at::randn({kLayers, kComponents}, type) * 0.5;
    for (int k : {1, 2, 3}) {
      const at::Tensor base = at::randn({kTokens, kLayers, kComponents}, type);
      const at::Tensor a = base.clone().requires_grad_(), b = base.clone().requires_grad_();
      const ComponentChoice ours = choose_components_cpu(a, bias, chunk_S, lists, k),
                            theirs = plain(b, bias, barred_SN, k);
      EXPECT_TRUE(at::equal(ours.ids_SLK, theirs.ids_SLK)) << k;
      EXPECT_LT((ours.weights_SLK - theirs.weights_SLK).abs().max().item<double>(), error) << k;
      EXPECT_LT((ours.z_loss_L - theirs.z_loss_L).abs().max().item<double>(), 10 * error) << k;
      const at::Tensor to_weights = at::randn({kTokens, kLayers, k}, type), to_z = at::randn({kLayers}, type) * 100;
      for (const auto& [uses_weights, uses_z] : {std::pair{true, true}, {true, false}, {false, true}}) {
        const auto grad_of = [&](const ComponentChoice& choice, const at::Tensor& scores) {
          at::Tensor loss = at::zeros({}, type);
          if (uses_weights) loss = loss + (choice.weights_SLK * to_weights).sum();
          if (uses_z) loss = loss + (choice.z_loss_L * to_z).sum();
          return torch::autograd::grad({loss}, {scores}, {}, /*retain_graph=*/true)[0];
        };
        EXPECT_LT((grad_of(ours, a) - grad_of(theirs, b)).abs().max().item<double>(), 10 * error)
            << k << uses_weights << uses_z;
      }
      const at::NoGradGuard no_grad;
      const ComponentChoice unlearnt = choose_components_cpu(base, bias, chunk_S, lists, k);
      EXPECT_FALSE(unlearnt.z_loss_L.defined());
      EXPECT_TRUE(at::equal(unlearnt.ids_SLK, ours.ids_SLK) && at::equal(unlearnt.weights_SLK, ours.weights_SLK));
    }
  }
}

}  // namespace
}  // namespace tessera
