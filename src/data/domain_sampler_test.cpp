#include "data/domain_sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "data/linear_baseline.h"
#include "data/test_folder.h"

namespace tessera {
namespace {

// Two domains of `num_sources` sources each; a document's tokens are 100 * (1 + source) + 0..9, the second domain's
// sources follow the first's. Source 0 has ten times the documents of the others.
void write_set(const std::filesystem::path& folder, int num_sources) {
  std::vector<std::string> names;
  for (int s = 0; s < 2 * num_sources; ++s) names.push_back("source " + std::to_string(s));
  ShardWriter writer(folder, {"code", "prose"}, names, 4096, 0, "tokenizer");
  for (int s = 0; s < 2 * num_sources; ++s) {
    for (int i = 0; i < (s == 0 ? 50 : 5); ++i) {
      std::vector<int32_t> tokens;
      for (int t = 0; t < 120 + 10 * s; ++t) tokens.push_back(100 * (1 + s) + (i + t) % 10);
      writer.add(tokens, s / num_sources, s, 500);
    }
  }
  writer.close();
}

TEST(DomainSampler, DrawsSourcesAlikeAndKeepsCalibrationSourcesApart) {
  const TestFolder folder;
  write_set(folder.path(), 6);
  const ShardSet shards(folder.path());
  const DomainSampler sampler(shards, {0, 1}, true);
  ASSERT_TRUE(sampler.has_calibration());
  EXPECT_EQ(sampler.calibration_sources().size(), 2u);  // one of the six of each domain
  Rng rng(3);
  std::set<int> trained, calibrated;
  int of_first = 0;
  for (int i = 0; i < 400; ++i) {
    const LabelledText text = sampler.draw(rng, 64, 0);
    ASSERT_EQ(text.tokens.size(), 64u);
    ASSERT_EQ(text.tokens[0], 0);
    const int source = text.tokens[1] / 100 - 1;
    EXPECT_EQ(text.labels[0], source / 6);
    EXPECT_TRUE(std::all_of(text.labels.begin(), text.labels.end(), [&](int32_t l) { return l == source / 6; }));
    trained.insert(source);
    of_first += source == 0;
    calibrated.insert(sampler.draw(rng, 64, 0, true).tokens[1] / 100 - 1);
  }
  EXPECT_EQ(trained.size(), 10u);
  EXPECT_EQ(calibrated.size(), 2u);
  for (int source : calibrated) EXPECT_FALSE(trained.contains(source));
  EXPECT_NEAR(of_first / 400.0, 0.1, 0.06);  // one of five sources of one of two domains, however large
}

TEST(DomainSampler, SplicesCarryALabelForEachToken) {
  const TestFolder folder;
  write_set(folder.path(), 6);
  const ShardSet shards(folder.path());
  const DomainSampler sampler(shards, {0, 1}, false);
  EXPECT_FALSE(sampler.has_calibration());
  Rng rng(4);
  bool mixed = false;
  for (int i = 0; i < 50; ++i) {
    const LabelledText text = sampler.draw(rng, 512, 1.0);
    ASSERT_LE(text.tokens.size(), 512u);
    for (size_t t = 1; t < text.tokens.size(); ++t) ASSERT_EQ(text.labels[t], (text.tokens[t] / 100 - 1) / 6);
    mixed = mixed || std::set<int32_t>(text.labels.begin(), text.labels.end()).size() > 1;
  }
  EXPECT_TRUE(mixed);
}

TEST(DomainSampler, RefusesOneDomainAndDomainsWithoutDocuments) {
  const TestFolder folder;
  write_set(folder.path(), 2);
  const ShardSet shards(folder.path());
  EXPECT_THROW(DomainSampler(shards, {0, 0}, false), Error);
  EXPECT_THROW(DomainSampler(shards, {0, 2}, false), Error);
  EXPECT_FALSE(DomainSampler(shards, {0, 1}, true).has_calibration());  // two sources: none can be spared
}

TEST(LinearBaseline, TellsDomainsByTheirTokens) {
  const TestFolder folder;
  write_set(folder.path(), 6);
  const ShardSet shards(folder.path());
  const DomainSampler sampler(shards, {0, 1}, false);
  const LinearBaseline baseline(sampler, 4096, 1, 400);
  Rng rng(9);
  int right = 0;
  for (int i = 0; i < 100; ++i) {
    const LabelledText text = sampler.draw(rng, 64, 0);
    right += baseline.classify(std::span(text.tokens).subspan(1)) == text.labels[0];
  }
  EXPECT_GE(right, 98);
}

}  // namespace
}  // namespace tessera
