#include "data/atlas.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "core/tokenizer_fixture.h"

namespace tessera {
namespace {

// Two components a layer and domain general (0), code (1, 2): digits are routed to 1, all else to 0; 2 never. The
// second choice is 0 or 1. Without component 1 a digit's next token costs 2 nats more.
class Fake : public Scorer {
 public:
  int vocab_size() const override { return 265; }
  int context_length() const override { return 32; }
  std::vector<ScoredText> score(std::span<const std::vector<int32_t>> texts, std::span<const int>,
                                std::span<const Route> replay) override {
    std::vector<ScoredText> scored;
    for (size_t i = 0; i < texts.size(); ++i) {
      ScoredText& one = scored.emplace_back();
      const int n = static_cast<int>(texts[i].size()) - 1;
      Route& route = one.route;
      route.num_tokens = n, route.num_domains = 1, route.num_layers = 1, route.num_active = 2;
      for (int t = 0; t < n; ++t) {
        const int32_t token = texts[i][static_cast<size_t>(t)];
        const bool digit = token >= '0' && token <= '9';
        route.components_TLK.insert(route.components_TLK.end(), {digit ? 1 : 0, digit ? 0 : 1});
        route.weights_TLK.insert(route.weights_TLK.end(), {0.75f, 0.25f});
        float log_prob = -1;
        if (!replay.empty()) {
          const float* weights = &replay[i].weights_TLK[static_cast<size_t>(2 * t)];
          EXPECT_FLOAT_EQ(weights[0] + weights[1], 1);
          if (digit && weights[0] == 0) log_prob -= 2;
        }
        one.log_probs.push_back(log_prob);
      }
    }
    return scored;
  }
};

Hierarchy fake_hierarchy() {
  Hierarchy h;
  h.domains = {{"general", 1, true, {}}, {"code", 2, false, {}}};
  h.num_active = 2;
  return h;
}

TEST(Atlas, SaysWhatAComponentIsFor) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer().dump(), "small tokenizer");
  const std::vector<Document> documents = {{.text = "x1x2x3 q45", .domain = "code"},
                                           {.text = "some words", .domain = "prose"}};
  Fake scorer;
  const Json atlas = build_atlas(scorer, tokenizer, documents, fake_hierarchy());
  ASSERT_EQ(atlas["components"].size(), 3u);
  const Json& digits = atlas["components"][1];
  EXPECT_EQ(digits["name"], "code 0");
  EXPECT_DOUBLE_EQ(digits["share"].get<double>(), 1);  // it is always one of the two
  EXPECT_NEAR(digits["removal"]["digit"][0].get<double>(), 2, 1e-6);
  EXPECT_EQ(digits["removal"]["digit"][1], 4);  // the last digit is not routed: nothing follows it
  EXPECT_NEAR(digits["removal"]["word piece"][0].get<double>(), 0, 1e-6);
  EXPECT_EQ(digits["picked_for"], Json::parse(R"({"classes": [], "domains": []})"));  // for all alike
  EXPECT_FALSE(digits["dead"].get<bool>());
  EXPECT_EQ(digits["contexts"][0][1].get<std::string>().size(), 1u);
  const Json& never = atlas["components"][2];
  EXPECT_TRUE(never["dead"].get<bool>());
  EXPECT_EQ(atlas["dead"], Json::array({"layer 0, code 1"}));
  EXPECT_FALSE(never.contains("removal_nats"));
  EXPECT_THROW(build_atlas(scorer, tokenizer, documents, Hierarchy{}), Error);
}

TEST(Atlas, MutualInformation) {
  const std::vector<int64_t> all = {50, 50};
  const auto mutual_information = [&](const std::vector<int64_t>& yes) {
    const std::vector<double> bits = information_by_kind(yes, all);
    return bits[0] + bits[1];
  };
  EXPECT_NEAR(mutual_information({50, 0}), 1, 1e-12);  // being picked tells the kind
  EXPECT_NEAR(mutual_information({20, 20}), 0, 1e-12);
  // By hand: p(yes) = 0.4; H(yes) - mean of H(0.6), H(0.2).
  const auto entropy = [](double p) { return -p * std::log2(p) - (1 - p) * std::log2(1 - p); };
  EXPECT_NEAR(mutual_information({30, 10}), entropy(0.4) - (entropy(0.6) + entropy(0.2)) / 2, 1e-12);
  const std::vector<double> bits = information_by_kind(std::vector<int64_t>{30, 10}, all);  // p(kind) KL(0.6 || 0.4)
  EXPECT_NEAR(bits[0], 0.5 * (0.6 * std::log2(0.6 / 0.4) + 0.4 * std::log2(0.4 / 0.6)), 1e-12);
  EXPECT_EQ(information_by_kind(std::vector<int64_t>{0, 0}, std::vector<int64_t>{0, 0}), (std::vector<double>{0, 0}));
}

// One component of K = 1 for digits in code alone, the other for the rest.
class Split : public Scorer {
 public:
  int vocab_size() const override { return 265; }
  int context_length() const override { return 8; }
  std::vector<ScoredText> score(std::span<const std::vector<int32_t>> texts, std::span<const int>,
                                std::span<const Route> replay) override {
    scored_windows += replay.empty() ? 0 : static_cast<int>(texts.size());
    std::vector<ScoredText> scored;
    for (const std::vector<int32_t>& text : texts) {
      ScoredText& one = scored.emplace_back();
      Route& route = one.route;
      route.num_tokens = static_cast<int>(text.size()) - 1;
      route.num_domains = route.num_layers = route.num_active = 1;
      for (int t = 0; t < route.num_tokens; ++t) {
        const int32_t token = text[static_cast<size_t>(t)];
        route.components_TLK.push_back(token >= '0' && token <= '9' ? 1 : 0);
        route.weights_TLK.push_back(1);
        one.log_probs.push_back(-1);
      }
    }
    return scored;
  }
  int scored_windows = 0;
};

TEST(Atlas, NamesTheClassesAndTheDomainThatAComponentIsPickedFor) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer().dump(), "small tokenizer");
  const std::vector<Document> documents = {{.text = "123456712345671234567", .domain = "code"},
                                           {.text = "wwwwwww.wwwwww", .domain = "prose"}};
  Split scorer;
  Hierarchy h;
  h.domains = {{"all", 2, false, {}}};
  h.num_active = 1;
  const Json digits = build_atlas(scorer, tokenizer, documents, h)["components"][1];
  ASSERT_EQ(digits["picked_for"]["classes"].size(), 1u) << digits["picked_for"].dump();
  EXPECT_EQ(digits["picked_for"]["classes"][0][0], "digit");
  EXPECT_NEAR(digits["picked_for"]["classes"][0][1].get<double>(), 1 / digits["share"].get<double>(), 1e-9);
  EXPECT_EQ(digits["picked_for"]["domains"][0][0], "code");
}

// The busiest window has no full stop: another one is measured for its sake, and no more than that.
TEST(Atlas, ARemovalIsMeasuredForEveryClass) {
  const Tokenizer tokenizer = Tokenizer::from_json(small_tokenizer().dump(), "small tokenizer");
  const std::vector<Document> documents = {{.text = "wwwwwwwwwwwwwwwwwwwwwwwwwwww12345.7", .domain = "code"}};
  Split scorer;
  Hierarchy h;
  h.domains = {{"all", 2, false, {}}};
  h.num_active = 1;
  AtlasOptions options;
  options.removal_windows = 1;
  options.class_tokens = 1;
  const Json rest = build_atlas(scorer, tokenizer, documents, h, options)["components"][0];
  EXPECT_EQ(rest["removal"].size(), 3u) << rest["removal"].dump();  // the start of a text too
  EXPECT_EQ(scorer.scored_windows, 2 + 1);                          // and one for the other component
}

}  // namespace
}  // namespace tessera
