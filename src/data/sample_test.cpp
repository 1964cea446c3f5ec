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

TEST(Sample, EverySourceOfADomainHasItsShare) {
  const auto text = [](char c, size_t bytes) { return std::string(bytes, c); };
  const std::vector<Document> documents = {{.text = text('p', 50), .domain = "a", .source = "large"},
                                           {.text = text('q', 50), .domain = "a", .source = "large"},
                                           {.text = text('r', 10), .domain = "a", .source = "small"},
                                           {.text = text('s', 90), .domain = "a", .source = "other"},
                                           {.text = "ef…gh", .domain = "b", .source = "large"},
                                           {.text = "never", .domain = "b", .source = "large"}};
  std::vector<Document> sample = even_sample(documents, 130);  // 10 of the small one, 60 of each of the others
  std::map<std::string, size_t> bytes;
  for (const Document& d : sample) bytes[d.domain + " " + d.source] += d.text.size();
  EXPECT_EQ(bytes, (std::map<std::string, size_t>{{"a large", 60}, {"a small", 10}, {"a other", 60}, {"b large", 12}}));
  EXPECT_EQ(sample[0].text, text('p', 50));
  EXPECT_EQ(sample[1].text, text('q', 10));
  sample = even_sample(documents, 4);  // "…" needs three bytes, two are left: the text is cut before it, and ends
  ASSERT_EQ(sample.back().domain, "b");
  EXPECT_EQ(sample.back().text, "ef");
  EXPECT_EQ(even_sample(documents, 0).size(), documents.size());
}

}  // namespace
}  // namespace tessera
