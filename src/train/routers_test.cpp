#include "train/routers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"
#include "train/add_domain.h"
#include "train/blocks.h"
#include "train/precompiled.h"
#include "train/route_bench.h"
#include "train/router_decode.h"
#include "train/scorer.h"
#include "train/tiny_model.h"

namespace tessera {
namespace {

std::vector<int32_t> some_tokens(size_t count) {
  std::vector<int32_t> tokens(count, 0);
  for (size_t i = 1; i < count; ++i) tokens[i] = static_cast<int32_t>((i * i * 7 + i) % 49) + 1;
  return tokens;
}

TEST(Routers, KeptRotaryPositionsAreTheComputedOnes) {
  const PackedRows rows = random_rows(tiny_architecture(), 2, 203, {0, 70, 75}, 5);
  const Rotary computed = rotary(rows.positions_RT, 4, 10000, at::kDouble);
  const Rotary kept = router_rotary(rows, 4, 10000, at::kDouble);
  EXPECT_TRUE(at::equal(kept.cos_RTh, computed.cos_RTh) && at::equal(kept.sin_RTh, computed.sin_RTh));
}

TEST(Routers, TopComponentsAreTheBestEligible) {
  const at::Tensor scores = at::tensor({3.0, 9.0, 1.0, 2.0, 2.0}).view({1, 1, 5});
  const at::Tensor bias = at::tensor({0.0, 0.0, 0.0, 0.5, 0.0}).view({1, 5});
  const auto ids = [&](std::vector<int32_t> eligible, int k) {
    const at::Tensor found = top_components(scores, bias, {0}, {eligible}, k).view({-1});
    return std::vector<int64_t>(found.data_ptr<int64_t>(), found.data_ptr<int64_t>() + found.numel());
  };
  EXPECT_EQ(ids({0, 1, 2, 3, 4}, 2), (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(ids({0, 2, 3, 4}, 3), (std::vector<int64_t>{0, 3, 4}));
  EXPECT_EQ(ids({2, 4}, 2), (std::vector<int64_t>{4, 2}));
}

TEST(Routers, DecodingGivesTheChoicesOfTheWholeText) {
  for (const bool own_embedding : {false, true}) {
    Architecture a = tiny_architecture();
    a.trunk.context_length = 300;
    a.domain_router.chunk_tokens = 32;
    a.domain_router.window_tokens = 64;
    a.domain_router.own_embedding = own_embedding;
    a.domain_router.margin = 0.05;
    a.domain_router.num_layers = a.component_router.num_layers = 2;
    const Parameters p(a, 8);
    const Model model(a, p, at::kFloat);
    const std::vector<int32_t> tokens = some_tokens(230);
    Route route;
    logits_of(model, tokens, {}, &route);
    const at::NoGradGuard no_grad;
    RouterDecoder decoder(a, p);
    size_t at = 0;
    std::set<std::vector<uint8_t>> active;
    for (int32_t token : tokens) {
      const RouterDecoder::Choice choice = decoder.step(token, p["embedding"][token]);
      active.insert(decoder.active());
      for (int64_t l = 0; l < 2; ++l) {
        for (int64_t k = 0; k < 2; ++k, ++at) {
          ASSERT_EQ(choice.ids_LK[l][k].item<int64_t>(), route.components_TLK[at]) << at;
          ASSERT_NEAR(choice.weights_LK[l][k].item<float>(), route.weights_TLK[at], 1e-4);
        }
      }
    }
    EXPECT_GT(active.size(), 1u);  // or the test would not see the heads change
  }
}

// Components and planner head of a denied domain.
void poison(const Parameters& p, const Architecture& a, const std::string& domain, int64_t first, int64_t count) {
  const at::NoGradGuard no_grad;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  p["component_router.heads." + domain].fill_(nan);
  for (int l = 0; l < a.trunk.num_layers; ++l) {
    for (const char* stack : {"components.gate_up", "components.down"})
      p["layers." + std::to_string(l) + "." + stack].narrow(0, first, count).fill_(nan);
  }
}

TEST(Routers, ADeniedDomainsHeadIsNotRead) {
  const Architecture a = tiny_architecture();
  const Model model(a, Parameters(a, 3), at::kFloat);
  RoutingOptions options;
  options.allowed_domains = allowed_domains(a.hierarchy, {}, {"mathematics"}, "--deny");
  Route free;  // or the denial would change nothing
  logits_of(model, some_tokens(90), {}, &free);
  EXPECT_TRUE(std::any_of(free.components_TLK.begin(), free.components_TLK.end(), [](int32_t id) { return id >= 6; }));
  const at::Tensor before = logits_of(model, some_tokens(90), options);
  poison(model.parameters(), a, "mathematics", 6, 2);
  EXPECT_TRUE(at::equal(before, logits_of(model, some_tokens(90), options)));
}

TEST(Routers, WithAllDomainsDeniedTheGeneralOneServes) {
  const Architecture a = tiny_architecture();
  const Model model(a, Parameters(a, 3), at::kFloat);
  RoutingOptions options;
  options.allowed_domains = allowed_domains(a.hierarchy, {}, {"code", "mathematics"}, "--deny");
  Route route;
  const at::Tensor logits = logits_of(model, some_tokens(90), options, &route);
  EXPECT_TRUE(at::isfinite(logits).all().item<bool>());
  for (int32_t id : route.components_TLK) EXPECT_LT(id, 4);
  Architecture flat = a;
  flat.hierarchy.domains[0].always = false;
  EXPECT_THROW(allowed_domains(flat.hierarchy, {}, {"general", "code", "mathematics"}, "--deny"), Error);
  EXPECT_THROW(allowed_domains(a.hierarchy, {"poems"}, {}, "--domains"), Error);
  EXPECT_TRUE(allowed_domains(a.hierarchy, {}, {}, "--domains").empty());
}

TEST(Routers, TheAblationsAreCausalAndLearn) {
  for (const char* kind : {"sum", "trunk"}) {
    Architecture a = tiny_architecture();
    a.component_router.kind = kind;
    a.trunk.num_dense_layers = 1;
    a.trunk.dense_width = 12;
    a.trunk.num_layers = 3;
    const Model model(a, Parameters(a, 3), at::kFloat);
    std::vector<int32_t> tokens = some_tokens(90);
    const at::Tensor before = logits_of(model, tokens);
    for (size_t t = 50; t < tokens.size(); ++t) tokens[t] = 1 + (tokens[t] + 11) % 49;
    const at::Tensor after = logits_of(model, tokens);
    EXPECT_LT((before.narrow(0, 0, 50) - after.narrow(0, 0, 50)).abs().max().item<float>(), 1e-5) << kind;
    const PackedRows rows = random_rows(a, 1, 60, {0}, 5);
    torch::autograd::backward({model.forward(rows, {}).hidden_RTD.square().sum()}, {});
    for (const std::string& name : model.parameters().learnt_names()) {
      if (name.starts_with("component_router.")) {
        EXPECT_TRUE(model.parameters()[name].grad().defined()) << kind << " " << name;
      }
    }
  }
}

TEST(Routers, ATableOfItsOwnMakesLevelOneIndependentOfTheTrunks) {
  Architecture a = tiny_architecture();
  a.domain_router.own_embedding = true;
  const Parameters p(a, 3);
  const PackedRows rows = random_rows(a, 1, 90, {0}, 5);
  const auto logits = [&] {
    return plan_domains(a, p, rows, at::embedding(p["embedding"], rows.tokens_RT), {}).logits_CM.detach().clone();
  };
  const at::Tensor before = logits();
  const at::NoGradGuard no_grad;
  p["embedding"].mul_(2);
  EXPECT_TRUE(at::equal(before, logits()));
  p["domain_router.embedding"].mul_(2);
  EXPECT_FALSE(at::equal(before, logits()));
}

TEST(Routers, AnAddedDomainLeavesTheOldWeightsWhereTheyWere) {
  const Architecture old = tiny_architecture();
  const Architecture a = with_domain(old, "poems");
  EXPECT_EQ(num_components(a.hierarchy), 10);
  EXPECT_EQ(a.hierarchy.domains.back().num_components, 2);
  EXPECT_THROW(with_domain(a, "poems"), Error);
  EXPECT_THROW(with_domain(Architecture{}, "poems"), Error);
}

TEST(Routers, BenchHasComparableRouters) {
  const Architecture a = tiny_architecture();
  EXPECT_EQ(num_components(with_components(a, 64).hierarchy), 64);
  const Architecture whole = monolithic(a, 24, 2);
  EXPECT_EQ(whole.component_router.width, 24);
  EXPECT_EQ(24 % (2 * whole.component_router.num_heads), 0);
  RouteBenchOptions options;
  options.components = {16};
  options.repeats = 1;
  options.decode_tokens = 2;
  const Json report = bench_routers(a, options);
  for (const char* key : {"progressive_ms_prefill512", "monolithic_ms_prefill512", "ratio_prefill512",
                          "ratio_prefill4096", "ratio_decode", "share_of_forward"}) {
    EXPECT_GT(report.at(key).get<double>(), 0) << key;
  }
  EXPECT_TRUE(report["by_components"].contains("16"));
}

}  // namespace
}  // namespace tessera
