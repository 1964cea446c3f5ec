#include "core/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <utility>

namespace tessera {
namespace {

// Algorithm 1 of the paper as it stands there: one merge after the other over the whole piece.
std::vector<int32_t> encode_plainly(const std::vector<Merge>& merges, std::vector<int32_t> tokens) {
  for (;;) {
    size_t best_rank = merges.size(), best_pos = 0;
    for (size_t pos = 0; pos + 1 < tokens.size(); ++pos) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (merges[rank].left == tokens[pos] && merges[rank].right == tokens[pos + 1]) {
          best_rank = rank;
          best_pos = pos;
        }
      }
    }
    if (best_rank == merges.size()) return tokens;
    tokens[best_pos] = merges[best_rank].merged;
    tokens.erase(tokens.begin() + static_cast<ptrdiff_t>(best_pos) + 1);
  }
}

TEST(BpeTest, SameAsTheAlgorithmInThePaper) {
  std::mt19937 rng(5);
  for (int round = 0; round < 40; ++round) {
    // Merges of earlier tokens in an order that no training would give: a merge may come before those that make its
    // parts, and many pairs compete.
    std::vector<std::string> texts;
    std::map<std::string, int32_t> ids;
    auto id_of = [&](const std::string& text) {
      if (text.size() == 1) return static_cast<int32_t>(text[0]);
      return ids.emplace(text, 256 + static_cast<int32_t>(ids.size())).first->second;
    };
    std::map<std::pair<int32_t, int32_t>, Merge> pairs;
    texts = {"a", "b", "c"};
    for (int i = 0; i < 40; ++i) {
      std::string left = texts[rng() % texts.size()], right = texts[rng() % texts.size()];
      if (left.size() + right.size() > 12) continue;
      texts.push_back(left + right);
      pairs[{id_of(left), id_of(right)}] = {id_of(left), id_of(right), id_of(left + right)};
    }
    std::vector<Merge> merges;
    for (const auto& [pair, merge] : pairs) merges.push_back(merge);
    std::shuffle(merges.begin(), merges.end(), rng);
    Bpe bpe(merges);
    for (size_t length : {1, 2, 3, 10, 63, 64, 65, 66, 150}) {  // up to 64 bytes by a scan, above by a queue
      std::string piece;
      while (piece.size() < length) piece += static_cast<char>('a' + rng() % 3);
      std::vector<int32_t> tokens;
      const std::vector<int32_t> symbols(piece.begin(), piece.end());
      bpe.encode(symbols, tokens);
      ASSERT_EQ(tokens, encode_plainly(merges, symbols)) << piece;
    }
  }
}

TEST(BpeTest, Appends) {
  const Bpe bpe({{0, 1, 2}});
  std::vector<int32_t> tokens{7};
  bpe.encode(std::vector<int32_t>{0, 1}, tokens);
  bpe.encode({}, tokens);
  EXPECT_EQ(tokens, (std::vector<int32_t>{7, 2}));
}

}  // namespace
}  // namespace tessera
