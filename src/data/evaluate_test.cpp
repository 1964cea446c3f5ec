#include "data/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"

namespace tessera {
namespace {

// One token a byte: GPT-2's byte alphabet without merges, and a start token (256).
Tokenizer byte_tokenizer() {
  Json vocab = Json::object();
  int shifted = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : 256 + shifted++;
    std::string symbol;
    if (code < 0x80) {
      symbol = {static_cast<char>(code)};
    } else {
      symbol = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    }
    vocab[symbol] = byte;
  }
  const Json bos = {{"id", 256},       {"content", "<|bos|>"}, {"single_word", false}, {"lstrip", false},
                    {"rstrip", false}, {"normalized", false},  {"special", true}};
  const Json json = {
      {"version", "1.0"},
      {"added_tokens", Json::array({bos})},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", vocab},
        {"merges", Json::array()}}}};
  return Tokenizer::from_json(json.dump(), "byte tokenizer");
}

// Every token has probability 1/2; keeps what it was asked.
class HalfScorer : public Scorer {
 public:
  explicit HalfScorer(int context_length) : context_length_(context_length) {}
  int vocab_size() const override { return 257; }
  int context_length() const override { return context_length_; }
  std::vector<ScoredText> score(std::span<const std::vector<int32_t>> texts, std::span<const int> domain_labels,
                                std::span<const Route>) override {
    std::vector<ScoredText> scored;
    calls.push_back(texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      windows.push_back(texts[i]);
      labels.push_back(domain_labels.empty() ? -2 : domain_labels[i]);
      scored.push_back({.log_probs = std::vector<float>(texts[i].size() - 1, std::log(0.5f)),
                        .route = route(static_cast<int>(texts[i].size()) - 1)});
    }
    return scored;
  }
  virtual Route route(int) { return {}; }

  std::vector<size_t> calls;
  std::vector<std::vector<int32_t>> windows;
  std::vector<int> labels;

 private:
  int context_length_;
};

Hierarchy two_domains() {
  Hierarchy h;
  h.domains = {{.name = "general", .num_components = 2, .always = true},
               {.name = "code", .num_components = 2},
               {.name = "prose", .num_components = 2}};
  return h;
}

// Two layers, K = 2: component 0 and, in layer 1, the code domain's 3 always; level 1 says "code" after 16 tokens.
class RoutedScorer : public HalfScorer {
 public:
  using HalfScorer::HalfScorer;
  Route route(int num_tokens) override {
    Route r{.num_tokens = num_tokens, .num_domains = 2, .num_layers = 2, .num_active = 2};
    r.chunk_starts_C = chunk_starts(num_tokens, 64);
    for (size_t c = 0; c < r.chunk_starts_C.size(); ++c) {
      r.pi_CM.insert(r.pi_CM.end(), {c ? 0.9f : 0.5f, c ? 0.1f : 0.5f});
      r.active_CM.insert(r.active_CM.end(), {1, 1});
    }
    for (int t = 0; t < num_tokens; ++t) r.components_TLK.insert(r.components_TLK.end(), {0, 2, 0, 3});
    r.weights_TLK.assign(r.components_TLK.size(), 0.5f);
    return r;
  }
};

TEST(Evaluate, UniformDistributionGivesItsBitsPerByte) {
  HalfScorer scorer(8);
  const std::vector<Document> documents = {{.text = "int main() {}", .domain = "code"},
                                           {.text = "Es war einmal …", .domain = "prose"},
                                           {.text = "", .domain = "empty"},
                                           {.text = "return 0;", .domain = "code"}};
  const Evaluation e = evaluate(scorer, byte_tokenizer(), documents);
  ASSERT_EQ(e.domains.size(), 2u);
  EXPECT_EQ(e.domains[0].name, "code");
  EXPECT_EQ(e.domains[0].documents, 2);
  EXPECT_EQ(e.domains[0].bytes, 22);
  EXPECT_EQ(e.domains[1].bytes, 17);  // the ellipsis is three bytes
  EXPECT_NEAR(e.bpb(0), 1.0, 1e-6);   // a byte is a token here, of one bit
  EXPECT_NEAR(e.bpb(1), 1.0, 1e-6);
  EXPECT_NEAR(e.bpb_all(), 1.0, 1e-6);
  EXPECT_EQ(e.documents.size(), 3u);
  EXPECT_NEAR(e.documents[2].nats, 9 * std::log(2.0), 1e-5);
  EXPECT_TRUE(e.route.empty());
  const Json json = to_json(e);
  EXPECT_NEAR(json["bpb"]["prose"].get<double>(), 1.0, 1e-6);
  EXPECT_EQ(json["documents"], 3);
  EXPECT_FALSE(json.contains("route_statistics"));
}

TEST(Evaluate, WindowsDontOverlapAndBeginWithBos) {
  HalfScorer scorer(5);
  std::string text = "abcdefghij";  // windows of 4, 4 and 2 text tokens
  evaluate(scorer, byte_tokenizer(), std::vector<Document>{{.text = text}, {.text = "xyz"}}, {.windows_a_call = 2});
  EXPECT_EQ(scorer.calls, (std::vector<size_t>{2, 2}));
  std::string seen;
  std::multimap<size_t, std::string> by_length;
  for (const auto& window : scorer.windows) {
    EXPECT_EQ(window[0], 256);
    by_length.emplace(window.size(), std::string(window.begin() + 1, window.end()));
  }
  const std::multimap<size_t, std::string> expected = {{3, "ij"}, {4, "xyz"}, {5, "abcd"}, {5, "efgh"}};
  EXPECT_EQ(by_length, expected);
  EXPECT_EQ(scorer.windows.front().size(), 5u);  // longest first
}

TEST(Evaluate, RouteStatistics) {
  RoutedScorer scorer(101);
  const std::vector<Document> documents = {{.text = std::string(100, 'p'), .domain = "prose"},
                                           {.text = std::string(50, 'c'), .domain = "code"},
                                           {.text = std::string(10, 's'), .domain = "code"},
                                           {.text = std::string(40, 'x'), .domain = "mixed"}};
  const Evaluation e = evaluate(scorer, byte_tokenizer(), documents, {.hierarchy = two_domains()});
  EXPECT_EQ(e.domains[0].name, "code");  // the model's order, not the documents'
  EXPECT_EQ(e.domains[2].name, "mixed");
  EXPECT_EQ(scorer.labels, (std::vector<int>{1, 0, -1, 0}));
  const RouteStatistics& route = e.route;
  EXPECT_EQ(route.num_layers(), 2);
  // 60 tokens of code x 2 layers x 2 picks, half of them the general domain's.
  EXPECT_EQ(route.owner_picks()[0], (std::vector<int64_t>{120, 120, 0}));
  EXPECT_EQ(route.owner_picks()[1], (std::vector<int64_t>{200, 200, 0}));
  EXPECT_EQ(route.component_picks()[0], (std::vector<int64_t>{200, 0, 200, 0, 0, 0}));
  EXPECT_EQ(route.component_picks()[1], (std::vector<int64_t>{200, 0, 0, 200, 0, 0}));
  EXPECT_NEAR(route.entropy(0), std::log(2.0) / std::log(6.0), 1e-9);
  EXPECT_EQ(route.num_dead(),
            8);  // in each layer: general's 1, one of code's, and both of prose's: its text took code's
  // Decided chunks: of prose 16-63 and 64-99 (wrong), of code 16-49 (right); "s" ends before the first decision.
  EXPECT_NEAR(route.chunk_accuracy(), 1.0 / 3.0, 1e-9);
  EXPECT_NEAR(route.document_accuracy(), 0.5, 1e-9);
  const Json json = to_json(e)["route_statistics"];
  EXPECT_EQ(json["owner_domains"][0], "general");
  EXPECT_NEAR(json["load"][0][1].get<double>(), 0.5, 1e-9);
}

TEST(Evaluate, RefusesWhatItCantMeasure) {
  HalfScorer scorer(8);
  EXPECT_THROW(evaluate(scorer, byte_tokenizer(), std::vector<Document>{}), Error);
  EXPECT_THROW(evaluate(scorer, byte_tokenizer(), std::vector<Document>{{.text = ""}}), Error);
  class NanScorer : public HalfScorer {
   public:
    using HalfScorer::HalfScorer;
    std::vector<ScoredText> score(std::span<const std::vector<int32_t>> texts, std::span<const int> labels,
                                  std::span<const Route> replay) override {
      auto scored = HalfScorer::score(texts, labels, replay);
      scored[0].log_probs[0] = std::numeric_limits<float>::quiet_NaN();
      return scored;
    }
  } broken(8);
  EXPECT_THROW(evaluate(broken, byte_tokenizer(), std::vector<Document>{{.text = "abc"}}), Error);
}

}  // namespace
}  // namespace tessera
