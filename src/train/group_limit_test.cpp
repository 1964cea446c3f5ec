// Group-limited top-K (ComponentRouter::max_groups).
#include <gtest/gtest.h>

#include <set>

#include "train/precompiled.h"
#include "train/tiny_model.h"

namespace tessera {
namespace {

TEST(GroupLimit, ATokenStaysInTheGeneralDomainAndItsBestGroups) {
  Architecture a = tiny_architecture();
  a.hierarchy.domains = {{"general", 2, true, {}}, {"code", 3}, {"mathematics", 3}, {"prose", 3}};
  a.hierarchy.num_active = 3;
  a.domain_router.kind = "uniform";
  const PackedRows rows = random_rows(a, 2, 80, {0}, 5);
  const std::vector<int> owner = owner_of_components(a.hierarchy);
  for (const int limit : {0, 1, 2}) {
    a.component_router.max_groups = limit;
    const Model model(a, Parameters(a, 3, at::kDouble), at::kDouble);
    size_t most = 0;
    for (const LayerChoice& choice : model.forward(rows, {}).choices) {
      const at::Tensor ids = choice.ids_SK.contiguous();
      for (int64_t s = 0; s < ids.size(0); ++s) {
        std::set<int> groups;
        for (int64_t k = 0; k < ids.size(1); ++k) {
          const int domain = owner[static_cast<size_t>(ids[s][k].item<int64_t>())];
          if (domain > 0) groups.insert(domain);
        }
        most = std::max(most, groups.size());
      }
    }
    EXPECT_EQ(most, limit == 0 ? 3u : static_cast<size_t>(limit));
  }
}

// The group is the one whose K best scores sum to the most, not the one with the single best score.
TEST(GroupLimit, AGroupCountsByTheSumOfItsBest) {
  Architecture a = tiny_architecture();
  a.hierarchy.domains = {{"code", 3}, {"prose", 3}};
  a.hierarchy.num_active = 2;
  a.domain_router.kind = "uniform";
  a.component_router.max_groups = 1;
  const Model model(a, Parameters(a, 3, at::kDouble), at::kDouble);
  const at::NoGradGuard no_grad;
  for (int layer = 0; layer < a.trunk.num_layers; ++layer) {
    const at::Tensor& bias = model.parameters()["layers." + std::to_string(layer) + ".selection_bias"];
    bias.copy_(at::tensor({1000.0, -1000.0, -1000.0, 100.0, 100.0, 0.0}, at::kDouble));
  }
  const PackedRows rows = random_rows(a, 1, 40, {0}, 5);
  for (const LayerChoice& choice : model.forward(rows, {}).choices) EXPECT_TRUE(choice.ids_SK.ge(3).all().item<bool>());
}

// A limit that bars nothing still takes the tensor operations, as a GPU does; without one the CPU takes its own
// function.
TEST(GroupLimit, KeepingEveryGroupIsTheChoiceWithoutALimit) {
  Architecture a = tiny_architecture();
  a.hierarchy.domains = {{"general", 4, true, {}}, {"code", 3}, {"mathematics", 3}};
  const PackedRows rows = random_rows(a, 2, 80, {0}, 5);
  for (const int k : {1, 2, 3}) {
    a.hierarchy.num_active = k;
    std::vector<at::Tensor> ids[2], grads[2];
    for (const int limit : {0, 2}) {
      a.component_router.max_groups = limit;
      const Model model(a, Parameters(a, 3, at::kDouble), at::kDouble);
      const Forward forward = model.forward(rows, {});
      at::Tensor loss = forward.hidden_RTD.sin().sum();
      for (const LayerChoice& choice : forward.choices) {
        loss = loss + choice.z_loss * 10;
        ids[limit > 0].push_back(choice.ids_SK);
      }
      loss.backward();
      for (const std::string& name : model.parameters().learnt_names())
        grads[limit > 0].push_back(model.parameters()[name].grad());
    }
    for (size_t l = 0; l < ids[0].size(); ++l) EXPECT_TRUE(at::equal(ids[0][l], ids[1][l])) << k;
    for (size_t i = 0; i < grads[0].size(); ++i) {
      ASSERT_EQ(grads[0][i].defined(), grads[1][i].defined());
      if (grads[0][i].defined()) EXPECT_LT((grads[0][i] - grads[1][i]).abs().max().item<double>(), 1e-10) << k;
    }
  }
}

}  // namespace
}  // namespace tessera
