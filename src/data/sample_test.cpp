#include "data/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace tessera {
namespace {

TEST(Sample, TakesSoMuchOfEachSourceWhateverTheOrder) {
  std::vector<Document> documents;
  for (int i = 0; i < 40; ++i) {
    const std::string text = std::to_string(i) + std::string(static_cast<size_t>(100 + i), 'x');
    documents.push_back({.text = text, .domain = "d", .source = i % 4 == 0 ? "rare" : "common"});
  }
  const std::vector<Document> sample = sample_by_source(documents, 400, 80);
  std::map<std::string, int64_t> bytes;
  for (const Document& d : sample) {
    EXPECT_LE(d.text.size(), 80u);
    bytes[d.source] += static_cast<int64_t>(d.text.size());
  }
  EXPECT_EQ(bytes["rare"], 400);
  EXPECT_EQ(bytes["common"], 400);
  std::reverse(documents.begin(), documents.end());
  const std::vector<Document> again = sample_by_source(documents, 400, 80);
  ASSERT_EQ(again.size(), sample.size());
  for (size_t i = 0; i < sample.size(); ++i) EXPECT_EQ(again[i].text, sample[i].text);
}

TEST(Sample, CutsNoCharacter) {
  EXPECT_EQ(cut_text("aé", 2), "a");
  EXPECT_EQ(cut_text("aé", 3), "aé");
  EXPECT_EQ(cut_text("€€", 5), "€");
}

}  // namespace
}  // namespace tessera
