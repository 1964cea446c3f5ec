// Prefill, decode, chunks, batches, threads and taken-over beginnings give the same bits; bad models and texts are
// refused.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "engine/random_model.h"
#include "engine/scorer.h"

namespace tessera::engine {
namespace {

struct Kind {
  const char* name;
  Architecture architecture;
};

std::vector<Kind> kinds() {
  std::vector<Kind> all = {{"hierarchy", tiny_architecture()}};
  Architecture dense = tiny_architecture();
  dense.hierarchy = {};
  dense.domain_router.kind = "none";
  dense.trunk.tied_embeddings = false;
  all.push_back({"dense", dense});
  Architecture flat = tiny_architecture();
  flat.hierarchy = {};
  flat.hierarchy.domains = {{"all", 6, false, {}}};
  flat.hierarchy.num_active = 1;
  flat.hierarchy.unique_width = 17;
  flat.domain_router.kind = "none";
  flat.component_router.kind = "gate";
  all.push_back({"flat", flat});
  Architecture always = tiny_architecture();
  always.hierarchy.always_on_width = 9;
  always.hierarchy.num_active = 3;
  always.component_router.prior_weight = 0.5;
  always.domain_router.chunk_tokens = 32;
  always.domain_router.window_tokens = 40;
  always.domain_router.patch_tokens = 8;
  all.push_back({"always-on", always});
  Architecture trunk = tiny_architecture();
  trunk.component_router.kind = "trunk";
  all.push_back({"heads on the trunk", trunk});
  Architecture single = tiny_architecture();
  single.hierarchy.num_active = 1;
  all.push_back({"one active", single});
  return all;
}

// Hidden rows of a text run in pieces of the given sizes (the last repeats), and its route.
struct TextRun {
  std::vector<float> hidden;
  Json route;
};
TextRun run(Engine& engine, const std::vector<int32_t>& tokens, size_t piece) {
  Sequence sequence = engine.new_sequence(true);
  TextRun out;
  for (size_t begin = 0; begin < tokens.size(); begin += piece) {
    const std::span<const int32_t> part = std::span(tokens).subspan(begin, std::min(piece, tokens.size() - begin));
    const Segment segment = {&sequence, part, Outputs::kAll};
    const std::span<const float> hidden = engine.forward({&segment, 1});
    out.hidden.insert(out.hidden.end(), hidden.begin(), hidden.end());
  }
  out.route = to_json(sequence.route);
  return out;
}

std::map<Part, int> parts_in(int bits, const Architecture& a) {  // as `quantize` does it in a wide trunk
  std::map<Part, int> parts = {
      {Part::kAttention, bits},        {Part::kDense, bits},    {Part::kBank, bits},
      {Part::kComponent, bits},        {Part::kAlwaysOn, bits}, {Part::kEmbedding, std::max(bits, 8)},
      {Part::kHead, std::max(bits, 8)}};
  if (bits < 16 && a.component_router.kind == "trunk")
    parts[Part::kComponentRouter] = bits;  // only heads, in this kind
  return parts;
}

TEST(Engine, AnyWayToRunATextGivesTheSameBits) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    const auto plain = write_random_model(kind.architecture, kind.name);
    const auto in_bf16 = quantised(plain, parts_in(16, kind.architecture)),
               in_8_bits = quantised(plain, parts_in(8, kind.architecture)),
               in_4_bits = quantised(plain, parts_in(4, kind.architecture));
    // 170 tokens: enough for two threads to take blocks of rows.
    const std::vector<int32_t> tokens = random_tokens(170, 60, 1), other = random_tokens(140, 60, 2);
    for (const auto& [folder, kv] :
         {std::pair(plain, KvType::kF32), std::pair(plain, KvType::kF16), std::pair(plain, KvType::kI8),
          std::pair(in_bf16, KvType::kF16), std::pair(in_8_bits, KvType::kF16), std::pair(in_4_bits, KvType::kF16)}) {
      Engine one(open_model(folder), {1, {}, kv}), two(open_model(folder), {2, {}, kv});
      const TextRun whole = run(one, tokens, 1000), other_whole = run(one, other, 1000);
      for (const auto& [engine, piece] : {std::pair(&one, size_t{1}), std::pair(&one, size_t{37}),
                                          std::pair(&two, size_t{50}), std::pair(&two, size_t{1000})}) {
        const TextRun pieces = run(*engine, tokens, piece);
        ASSERT_EQ(pieces.hidden, whole.hidden) << "pieces of " << piece;
        ASSERT_EQ(pieces.route, whole.route);
      }
      // Beside another text that is at another place.
      Sequence a = two.new_sequence(true), b = two.new_sequence(true);
      const Segment head = {&b, std::span(other).first(30), Outputs::kNone};
      two.forward({&head, 1});
      const Segment both[] = {{&b, std::span(other).subspan(30), Outputs::kLast}, {&a, tokens, Outputs::kAll}};
      const std::span<const float> hidden = two.forward(both);
      const size_t width = 32;
      EXPECT_TRUE(std::equal(hidden.begin(), hidden.begin() + width, other_whole.hidden.end() - width));
      EXPECT_TRUE(std::equal(hidden.begin() + width, hidden.end(), whole.hidden.begin()));
      EXPECT_EQ(to_json(a.route), whole.route);
    }
  }
}

TEST(Engine, RoutesUseSeveralComponentsAndDomains) {  // or the test above would see little
  Engine engine(open_model(write_random_model(tiny_architecture(), "hierarchy")), {1});
  const std::vector<int32_t> tokens = random_tokens(250, 60, 1);
  Sequence sequence = engine.new_sequence(true);
  const Segment segment = {&sequence, tokens, Outputs::kLast};
  engine.forward({&segment, 1});
  const std::set<int32_t> used(sequence.route.components_TLK.begin(), sequence.route.components_TLK.end());
  EXPECT_GT(used.size(), 6u);
  EXPECT_EQ(sequence.route.chunk_starts_C, (std::vector<int32_t>{0, 16, 64, 128, 192}));
  const auto& active = sequence.route.active_CM;
  EXPECT_EQ(std::accumulate(active.begin(), active.begin() + 3, 0), 3);
  EXPECT_LT(std::accumulate(active.begin() + 3, active.end(), 0), 12);
}

TEST(Engine, ABeginningThatIsTakenOverGivesTheSameBits) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    Engine engine(open_model(write_random_model(kind.architecture, kind.name)), {1});
    const std::vector<int32_t> tokens = random_tokens(200, 60, 3);
    const TextRun whole = run(engine, tokens, 1000);
    for (const int64_t most : {1, 20, 64, 100, 199}) {
      Sequence first = engine.new_sequence(true);
      const Segment part = {&first, std::span(tokens).first(150), Outputs::kNone};
      engine.forward({&part, 1});
      const int64_t reused = engine.reusable_prefix(std::min<int64_t>(most, 150));
      Sequence second = engine.prefix_of(first, reused);
      ASSERT_EQ(second.length(), reused);
      const Segment rest = {&second, std::span(tokens).subspan(static_cast<size_t>(reused)), Outputs::kLast};
      const std::span<const float> hidden = engine.forward({&rest, 1});
      EXPECT_TRUE(std::equal(hidden.begin(), hidden.end(), whole.hidden.end() - 32)) << reused;
      EXPECT_EQ(to_json(second.route), whole.route);
      // The first one was not harmed.
      const Segment more = {&first, std::span(tokens).subspan(150), Outputs::kLast};
      const std::span<const float> own = engine.forward({&more, 1});
      EXPECT_TRUE(std::equal(own.begin(), own.end(), whole.hidden.end() - 32)) << reused;
    }
  }
}

// A text's log-probabilities and routes with quantised weights, and with f32 ones of the values that they stand for.
struct QuantisedAndPlain {
  ScoredText quantised, plain;
};
QuantisedAndPlain score_both(const Architecture& a, int bits, bool replay) {
  const std::vector<int32_t> tokens = random_tokens(120, 60, 6);
  const std::map<Part, int> parts = parts_in(bits, a);
  const auto stand_for = [&](const TensorSpec& spec, std::vector<float>& v) {
    if (!parts.contains(spec.part) || spec.shape.size() != 2) return;
    const int of_part = parts.at(spec.part);
    std::vector<std::byte> made(static_cast<size_t>(quantised_bytes(spec.shape[0], spec.shape[1], of_part)));
    quantise_matrix(v.data(), spec.shape[0], spec.shape[1], of_part, made.data());
    const WeightMatrix matrix = {made.data(), of_part == 8 ? WeightType::kQ8 : WeightType::kQ4, spec.shape[0],
                                 spec.shape[1]};
    for (int64_t row = 0; row < spec.shape[0]; ++row) copy_weight_row(matrix, row, v.data() + row * spec.shape[1]);
  };
  Engine f32(open_model(write_random_model(a, fmt::format("stands-for-{}", bits), stand_for)), {1});
  Engine quantised_one(open_model(quantised(write_random_model(a, "hierarchy"), parts)), {1});
  EngineScorer plain_scorer(f32), scorer(quantised_one);
  const ScoredText plain = plain_scorer.score({&tokens, 1})[0];
  return {replay ? scorer.score({&tokens, 1}, {}, {&plain.route, 1})[0] : scorer.score({&tokens, 1})[0], plain};
}

// With activations of 16 bits (8-bit weights) and of 8 (4-bit weights), on the same route.
TEST(Engine, QuantisedWeightsSayWhatTheyStandFor) {
  for (const auto& [bits, bound] : {std::pair(8, 2e-3), std::pair(4, 0.2)}) {
    const auto [found, expected] = score_both(tiny_architecture(), bits, /*replay=*/true);
    ASSERT_EQ(found.log_probs.size(), expected.log_probs.size());
    double error = 0;
    for (size_t i = 0; i < found.log_probs.size(); ++i) error += std::fabs(found.log_probs[i] - expected.log_probs[i]);
    EXPECT_LT(error / static_cast<double>(found.log_probs.size()), bound) << bits << " bits, nats a token";
  }
}

TEST(Engine, QuantisedHeadsChooseWhatTheyStandFor) {
  Architecture a = tiny_architecture();
  a.component_router.kind = "trunk";
  for (const auto& [bits, least] : {std::pair(8, 0.99), std::pair(4, 0.8)}) {
    const auto [found, expected] = score_both(a, bits, /*replay=*/false);
    const std::vector<int32_t>&ids = found.route.components_TLK, &theirs = expected.route.components_TLK;
    ASSERT_EQ(ids.size(), theirs.size());
    size_t same = 0;
    for (size_t i = 0; i < ids.size(); ++i) same += ids[i] == theirs[i];
    EXPECT_GT(static_cast<double>(same) / static_cast<double>(ids.size()), least) << bits << " bits";
  }
}

TEST(Engine, AReplayedRouteGivesTheSameBits) {
  Engine engine(open_model(write_random_model(tiny_architecture(), "hierarchy")), {1});
  EngineScorer scorer(engine);
  const std::vector<int32_t> tokens = random_tokens(100, 60, 4);
  const std::vector<ScoredText> free = scorer.score({&tokens, 1});
  const Route route = free[0].route;
  EXPECT_EQ(scorer.score({&tokens, 1}, {}, {&route, 1})[0].log_probs, free[0].log_probs);
  // Beside a text that chooses for itself.
  const std::vector<int32_t> other = random_tokens(90, 60, 5);
  const std::vector<float> other_alone = run(engine, other, 1000).hidden, alone = run(engine, tokens, 1000).hidden;
  Sequence replayed = engine.new_sequence(true), chooses = engine.new_sequence(true);
  replayed.replay = &route;
  const Segment both[] = {{&chooses, other, Outputs::kAll}, {&replayed, std::span(tokens).first(99), Outputs::kAll}};
  const std::span<const float> hidden = engine.forward(both);
  EXPECT_TRUE(std::equal(other_alone.begin(), other_alone.end(), hidden.begin()));
  EXPECT_TRUE(std::equal(hidden.begin() + static_cast<int64_t>(other_alone.size()), hidden.end(), alone.begin()));
  Route changed = route;
  std::fill(changed.components_TLK.begin(), changed.components_TLK.end(), 1);
  for (size_t i = 0; i < changed.components_TLK.size(); i += 2) changed.components_TLK[i] = 0;
  EXPECT_NE(scorer.score({&tokens, 1}, {}, {&changed, 1})[0].log_probs, free[0].log_probs);
}

TEST(Engine, WeightsOfDomainsThatAreNotAllowedAreNeverRead) {
  Architecture planner = tiny_architecture(), trunk = planner;
  trunk.component_router.kind = "trunk";
  const auto poison = [&](const TensorSpec& spec, std::vector<float>& v) {
    const bool is_prose =
        (spec.part == Part::kComponent && spec.index >= 8) || spec.name == "component_router.heads.prose";
    if (is_prose) std::fill(v.begin(), v.end(), std::numeric_limits<float>::quiet_NaN());
  };
  const std::vector<int32_t> tokens = random_tokens(100, 60, 5);
  for (const Architecture& a : {trunk, planner}) {
    const auto folder = write_random_model(a, "poisoned", poison);
    Engine clean(open_model(write_random_model(a, "clean")), {1, {1, 1, 0}}),
        poisoned(open_model(folder), {1, {1, 1, 0}}), all(open_model(folder), {1});
    EXPECT_EQ(run(poisoned, tokens, 1000).hidden, run(clean, tokens, 1000).hidden);
    EXPECT_THROW(run(all, tokens, 1000), Error);  // not finite
  }
  // Nor is one of them ever named: pi is of what may be chosen.
  Engine clean(open_model(write_random_model(planner, "clean")), {1, {1, 1, 0}});
  Sequence sequence = clean.new_sequence();
  const Segment segment = {&sequence, tokens};
  clean.forward({&segment, 1});
  const std::vector<float>& pi_CM = sequence.route.pi_CM;
  ASSERT_GE(pi_CM.size(), 9u);
  for (size_t i = 0; i < pi_CM.size(); i += 3) {
    EXPECT_EQ(pi_CM[i + 2], 0.0f);
    EXPECT_NEAR(pi_CM[i] + pi_CM[i + 1], 1.0f, 1e-6f);
  }
}

TEST(Engine, RoutersThatItDoesNotRunAreRefused) {
  for (const bool is_sum : {true, false}) {
    Architecture a = tiny_architecture();
    (is_sum ? a.component_router.kind : a.domain_router.kind) = is_sum ? "sum" : "random";
    try {
      Engine(open_model(write_random_model(a, "ablation")), {1});
      FAIL() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kConfig) << e.what();
    }
  }
}

TEST(Engine, RoutersThatGiveNoNumbersAreRefused) {
  for (const std::string broken : {"domain_router.head", "component_router.heads.general"}) {
    const auto folder = write_random_model(tiny_architecture(), "no-numbers", [&](const TensorSpec& spec, auto& v) {
      if (spec.name == broken) v.back() = std::numeric_limits<float>::quiet_NaN();
    });
    Engine engine(open_model(folder), {1});
    EXPECT_THROW(run(engine, random_tokens(100, 60, 5), 1000), Error) << broken;
  }
}

TEST(Engine, BitsThatMixWithinTheBlocksAreRefused) {  // they would read each other's rows
  const auto folder = write_random_model(tiny_architecture(), "mixed-bits");
  const auto mixed = quantised(folder, {{Part::kAttention, 8}, {Part::kComponent, 4}, {Part::kBank, 4}});
  EXPECT_THROW(Engine(open_model(mixed), {1}), Error);
}

TEST(Engine, TextsThatDontFitAreRefused) {
  Engine engine(open_model(write_random_model(tiny_architecture(), "hierarchy")), {1});
  EXPECT_THROW(run(engine, {0, 60}, 10), Error);
  EXPECT_THROW(run(engine, {0, -1}, 10), Error);
  EXPECT_THROW(run(engine, random_tokens(301, 60, 1), 1000), Error);
  EXPECT_NO_THROW(run(engine, random_tokens(300, 60, 1), 1000));
}

}  // namespace
}  // namespace tessera::engine
