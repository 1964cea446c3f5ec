#include "train/routers.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "data/test_folder.h"
#include "train/add_domain.h"
#include "train/blocks.h"
#include "train/checkpoint.h"
#include "train/precompiled.h"
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
  Route restricted;
  const at::Tensor before = logits_of(model, some_tokens(90), options, &restricted);
  for (size_t i = 0; i < restricted.pi_CM.size(); i += 2) {  // pi is of what may be chosen
    EXPECT_EQ(restricted.pi_CM[i], 1.0f);
    EXPECT_EQ(restricted.pi_CM[i + 1], 0.0f);
  }
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
  for (float pi : route.pi_CM) EXPECT_EQ(pi, 0.0f);
  Architecture flat = a;
  flat.hierarchy.domains[0].always = false;
  EXPECT_THROW(allowed_domains(flat.hierarchy, {}, {"general", "code", "mathematics"}, "--deny"), Error);
  EXPECT_THROW(allowed_domains(a.hierarchy, {"poems"}, {}, "--domains"), Error);
  EXPECT_THROW(allowed_domains(a.hierarchy, {"code"}, {"code"}, "--domains/--deny"), Error);
  EXPECT_TRUE(allowed_domains(a.hierarchy, {}, {}, "--domains").empty());
  EXPECT_TRUE(allowed_domains(a.hierarchy, {"code", "mathematics"}, {}, "--domains").empty());  // none is barred
}

TEST(Routers, OtherComponentRoutersAreCausalAndLearn) {
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

TEST(Routers, PatchesAreOfOnePieceAndOneChunk) {
  Architecture a = tiny_architecture();
  a.domain_router.chunk_tokens = 32;
  const PackedRows rows = pack_rows(
      2, 50, some_tokens(100),
      [] {
        std::vector<int32_t> starts(100, 0);
        std::fill(starts.begin() + 19, starts.begin() + 50, 19);  // the first row: pieces of 19 and 31; the second: 50
        return starts;
      }(),
      {}, {}, 32, at::kCPU);
  const Patches patches = patches_of(rows, 4);
  EXPECT_EQ(patches.rows.num_tokens, 13);  // 5 + 8 of the first row, 13 of the second
  ASSERT_EQ(patches.rows.chunks.size(), rows.chunks.size());
  for (size_t c = 0; c < rows.chunks.size(); ++c) {
    const auto &chunk = rows.chunks[c], &patched = patches.rows.chunks[c];
    EXPECT_EQ(patched.first, chunk.first);
    EXPECT_EQ(patched.end - patched.begin, (chunk.end - chunk.begin + 3) / 4);
    for (int64_t t = chunk.begin; t < chunk.end; ++t) {
      const int64_t id = patches.patch_id_S[chunk.row * 50 + t].item<int64_t>();
      EXPECT_EQ(id, chunk.row * 13 + patched.piece_start + (t - chunk.piece_start) / 4);
    }
  }
}

TEST(Routers, LevelOneOfAPieceIsTheSameAloneAndPackedInPatches) {
  Architecture a = tiny_architecture();
  a.domain_router.chunk_tokens = 32;
  a.domain_router.window_tokens = 48;
  for (const int patch : {1, 4, 16}) {
    a.domain_router.patch_tokens = patch;
    const Parameters p(a, 3);
    const std::vector<int32_t> tokens = some_tokens(150);
    std::vector<int32_t> starts(150, 0);
    std::fill(starts.begin() + 51, starts.end(), 51);
    const auto logits = [&](const PackedRows& rows) {
      return plan_domains(a, p, rows, at::embedding(p["embedding"], rows.tokens_RT), {}).logits_CM.detach();
    };
    const PackedRows packed = pack_rows(1, 150, tokens, starts, {}, {}, 32, at::kCPU);
    const PackedRows alone =
        pack_rows(1, 99, {tokens.begin() + 51, tokens.end()}, std::vector<int32_t>(99, 0), {}, {}, 32, at::kCPU);
    const int64_t chunks = static_cast<int64_t>(alone.chunks.size());
    const at::Tensor in_pack = logits(packed).narrow(0, static_cast<int64_t>(packed.chunks.size()) - chunks, chunks);
    EXPECT_TRUE(at::allclose(in_pack, logits(alone), 0, 1e-5)) << patch;
  }
}

TEST(Routers, AnAddedDomainHasComponentsOfItsOwn) {
  const Architecture old = tiny_architecture();
  const Architecture a = with_domain(old, "poems");
  EXPECT_EQ(num_components(a.hierarchy), 10);
  EXPECT_EQ(a.hierarchy.domains.back().num_components, 2);
  EXPECT_THROW(with_domain(a, "poems"), Error);
  EXPECT_THROW(with_domain(Architecture{}, "poems"), Error);
}

TEST(Routers, AResumedRunKeepsTheOldRowsOfItsCheckpointAndNotOfAModelThatMovedOn) {
  const Architecture old = tiny_architecture(), grown = with_domain(old, "poems");
  const TestFolder folder;
  const auto save = [&](uint64_t seed) {
    save_model(folder.path() / "model", Model(old, Parameters(old, seed), at::kFloat), {});
    return open_model(folder.path() / "model");
  };
  const Parameters checkpoint(grown, 1), resumed(grown, 1);
  const OldWeights first(save(3), checkpoint);
  OldWeights kept(save(4), resumed);
  const at::NoGradGuard no_grad;
  for (const ParameterSpec& spec : resumed.specs()) at::Tensor(resumed[spec.name]).copy_(checkpoint[spec.name]);
  kept.take_from(resumed);
  for (const ParameterSpec& spec : resumed.specs()) {  // an update
    if (resumed[spec.name].requires_grad() || spec.buffer) at::Tensor(resumed[spec.name]).add_(1);
  }
  kept.restore(resumed);
  const Parameters before(open_model(folder.path() / "model"));  // for the old shapes
  for (const ParameterSpec& spec : before.specs()) {
    const int64_t rows = before[spec.name].size(0);
    EXPECT_TRUE(at::equal(resumed[spec.name].narrow(0, 0, rows), checkpoint[spec.name].narrow(0, 0, rows)))
        << spec.name;
  }
}

TEST(Routers, AnAddedDomainServesNoTextBeforeTheFirstDecision) {
  const Architecture a = with_domain(tiny_architecture(), "poems");
  const Model model(a, Parameters(a, 3), at::kFloat);
  const auto served = [&](const std::vector<uint8_t>& allowed) {
    RoutingOptions options;
    options.allowed_domains = allowed;
    Route route;
    logits_of(model, some_tokens(16), options, &route);  // one chunk: nothing is decided
    return std::any_of(route.components_TLK.begin(), route.components_TLK.end(), [](int32_t id) { return id >= 8; });
  };
  EXPECT_FALSE(served({}));
  EXPECT_TRUE(served({0, 0, 1}));  // unless it is all that may serve
}

TEST(Routers, EveryDomainOfABatchCountsAlikeWhenLabelsAreBalanced) {
  Architecture a = tiny_architecture();
  a.domain_router.chunk_tokens = 16;
  const Parameters p(a, 3);
  // 6 chunks of the first domain, 1 of the second; what level 1 says is the same for all, so the loss tells the
  // weights.
  p["domain_router.head"].detach().zero_();
  p["domain_router.head"].detach()[0].fill_(1.0);
  std::vector<int32_t> tokens = some_tokens(128), labels(128, 0);
  std::fill(labels.begin() + 112, labels.end(), 1);
  const PackedRows rows = pack_rows(1, 128, tokens, std::vector<int32_t>(128, 0), tokens, labels, 16, at::kCPU);
  const auto loss = [&](bool balances) {
    RoutingOptions options;
    options.balances_labels = balances;
    const DomainPlan plan = plan_domains(a, p, rows, at::embedding(p["embedding"], rows.tokens_RT), options);
    const at::Tensor log_pi = at::log_softmax(plan.logits_CM, 1);
    const double first = -log_pi.narrow(0, 0, 6).select(1, 0).mean().item<double>();
    const double second = -log_pi[6][1].item<double>();
    const double expected = balances ? (first + second) / 2 : (6 * first + second) / 7;
    EXPECT_NEAR(plan.loss.item<double>(), expected, 1e-5);
    return expected;
  };
  EXPECT_GT(std::abs(loss(true) - loss(false)), 1e-3);
}

}  // namespace
}  // namespace tessera
