#include "data/trigram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "base/rng.h"

namespace tessera {
namespace {

constexpr int kVocab = 23;
constexpr int32_t kBos = 7;

// Pieces with a skewed distribution that depends on the token before; some end with a bos (the end of a text).
std::vector<std::vector<int32_t>> random_pieces(int num_pieces, uint64_t seed) {
  Rng rng(seed);
  std::vector<std::vector<int32_t>> pieces;
  for (int i = 0; i < num_pieces; ++i) {
    std::vector<int32_t> piece = {kBos};
    const uint64_t length = 1 + rng.below(40);
    while (piece.size() <= length) {
      const double u = rng.uniform();
      const int32_t token = static_cast<int32_t>((static_cast<int>(u * u * u * 17) + piece.back() * 3) % (kVocab - 2));
      if (token != kBos) piece.push_back(token);  // the last two of the vocabulary never occur
    }
    if (i % 2 == 0) piece.push_back(kBos);
    pieces.push_back(piece);
  }
  return pieces;
}

// The equations of the header as they stand there, over maps.
class BruteForce {
 public:
  using Gram = std::vector<int32_t>;
  explicit BruteForce(const std::vector<std::vector<int32_t>>& pieces) {
    for (const auto& piece : pieces) {
      for (size_t i = 1; i < piece.size(); ++i) {
        if (i == 1) {
          ++levels_[2][{kBos, piece[1]}];
        } else {
          ++levels_[3][{piece[i - 2], piece[i - 1], piece[i]}];
        }
      }
    }
    for (const auto& [gram, count] : std::map<Gram, int>(levels_[3])) ++levels_[2][{gram[1], gram[2]}];
    for (const auto& [gram, count] : std::map<Gram, int>(levels_[2])) ++levels_[1][{gram[1]}];
  }
  double p(const Gram& context, int32_t next) const {
    const size_t level = context.size() + 1;
    const Gram shorter = context.empty() ? Gram{} : Gram(context.begin() + 1, context.end());
    const double lower = context.empty() ? 1.0 / kVocab : p(shorter, next);
    double total = 0, given = 0, own = 0;
    for (const auto& [gram, count] : levels_[level]) {
      if (!std::equal(context.begin(), context.end(), gram.begin())) continue;
      total += count;
      given += discount(level, count);
      if (gram.back() == next) own = count - discount(level, count);
    }
    return total > 0 ? own / total + given / total * lower : lower;
  }
  double discount(size_t level, int count) const {
    double n[5] = {};
    for (const auto& [gram, c] : levels_[level]) ++n[std::min(c, 4)];
    const double y = n[1] / (n[1] + 2 * n[2]);
    const double d[4] = {0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]};
    for (int c = 1; c <= 3; ++c) {
      if (!(d[c] >= 0 && d[c] <= c)) return 0.5 * std::min(count, 3);
    }
    return d[std::min(count, 3)];
  }

 private:
  std::map<Gram, int> levels_[4];
};

Trigram trained(const std::vector<std::vector<int32_t>>& pieces) {
  TrigramCounts counts(kVocab, kBos);
  for (const auto& piece : pieces) counts.add(piece);
  return Trigram(std::move(counts), 16);
}

TEST(Trigram, SumsToOneForEveryContext) {
  const Trigram trigram = trained(random_pieces(60, 1));
  for (int32_t u = 0; u < kVocab; ++u) {
    for (int32_t v = 0; v < kVocab; ++v) {
      double sum = 0;
      for (int32_t w = 0; w < kVocab; ++w) {
        const double p = trigram.probability(u, v, w);
        EXPECT_GT(p, 0);
        sum += p;
      }
      EXPECT_NEAR(sum, 1.0, 1e-6) << u << " " << v;
    }
  }
}

TEST(Trigram, EqualsTheEquations) {
  for (const int num_pieces : {1, 3, 40}) {  // with little text the discounts fall back
    const auto pieces = random_pieces(num_pieces, 2);
    const Trigram trigram = trained(pieces);
    const BruteForce brute(pieces);
    for (int32_t v = 0; v < kVocab; ++v) {
      for (int32_t w = 0; w < kVocab; ++w) {
        for (int32_t u = 0; u < kVocab; ++u) {
          if (v == kBos) {
            EXPECT_NEAR(trigram.probability(u, v, w), brute.p({kBos}, w), 1e-7);
          } else {
            EXPECT_NEAR(trigram.probability(u, v, w), brute.p({u, v}, w), 1e-7);
          }
        }
      }
    }
  }
}

TEST(Trigram, BatchesCountWhatTheirPiecesDo) {
  // Rows of 8: [bos 1 2 3 bos 4 5 6] with targets shifted by one, and a row that goes on behind a bos of its own.
  Batch batch{.num_rows = 2,
              .num_tokens = 8,
              .inputs_RT = {7, 1, 2, 3, 7, 4, 5, 6, 7, 6, 2, 1, 2, 3, 1, 2},
              .targets_RT = {1, 2, 3, 7, 4, 5, 6, 2, 6, 2, 1, 2, 3, 1, 2, 7},
              .starts_RT = {0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0},
              .domains_RT = std::vector<int32_t>(16, 0)};
  TrigramCounts counts(kVocab, kBos);
  counts.add(batch);
  EXPECT_EQ(counts.num_tokens(), 16);
  const Trigram from_batch(std::move(counts), 16);
  const Trigram from_pieces = trained({{7, 1, 2, 3, 7}, {7, 4, 5, 6, 2}, {7, 6, 2, 1, 2, 3, 1, 2, 7}});
  for (int32_t u = 0; u < kVocab; ++u) {
    for (int32_t v = 0; v < kVocab; ++v) {
      for (int32_t w = 0; w < kVocab; ++w) EXPECT_EQ(from_batch.probability(u, v, w), from_pieces.probability(u, v, w));
    }
  }
}

TEST(Trigram, ScoresFromTheStartToken) {
  const auto pieces = random_pieces(50, 3);
  Trigram trigram = trained(pieces);
  const std::vector<std::vector<int32_t>> texts = {{kBos, 1, 2, 22}, {kBos}};
  const std::vector<ScoredText> scored = trigram.score(texts);
  ASSERT_EQ(scored[0].log_probs.size(), 3u);
  EXPECT_TRUE(scored[1].log_probs.empty());
  const BruteForce brute(pieces);
  EXPECT_NEAR(scored[0].log_probs[0], std::log(brute.p({kBos}, 1)), 1e-5);
  EXPECT_NEAR(scored[0].log_probs[1], std::log(brute.p({kBos, 1}, 2)), 1e-5);
  EXPECT_NEAR(scored[0].log_probs[2], std::log(brute.p({1, 2}, 22)), 1e-5);
  EXPECT_EQ(scored[0].route.num_tokens, 0);
}

TEST(Trigram, ManyTokensAreMergedOnTheWay) {
  // More than are kept pending: counted in parts, with the same result as the ratio says.
  TrigramCounts counts(4, 0);
  std::vector<int32_t> piece = {0};
  for (int i = 0; i < 30000; ++i) piece.insert(piece.end(), {1, 2, 3});
  for (int i = 0; i < 100; ++i) counts.add(piece);
  EXPECT_EQ(counts.num_tokens(), 9'000'000);
  const Trigram trigram(std::move(counts), 8);
  EXPECT_GT(trigram.probability(1, 2, 3), 0.9999);
  EXPECT_LT(trigram.probability(1, 2, 1), 1e-4);
}

TEST(Trigram, RefusesWhatIsNoPiece) {
  TrigramCounts counts(kVocab, kBos);
  EXPECT_THROW(counts.add(std::vector<int32_t>{1, 2}), BugError);
  EXPECT_THROW(counts.add(std::vector<int32_t>{kBos, kVocab}), BugError);
  EXPECT_THROW(counts.add(std::vector<int32_t>{kBos, -1}), BugError);
  EXPECT_THROW(Trigram(TrigramCounts(kVocab, kBos), 8), BugError);
}

}  // namespace
}  // namespace tessera
