// Against the scalar twin: ties, rows that choose from different groups, values that are no numbers.
#include "kernels/top_k.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"

namespace tessera {
namespace {

struct Case {
  std::vector<int64_t> group_sizes;
  int64_t rows, k;
  std::vector<float> scores, bias, added;
  std::vector<int32_t> offsets;

  Case(std::vector<int64_t> sizes, int64_t num_rows, int64_t num_active, uint64_t seed)
      : group_sizes(std::move(sizes)), rows(num_rows), k(num_active) {
    Rng rng(seed);
    const float nan = std::nanf("");
    for (size_t g = 0; g < group_sizes.size(); ++g) {
      for (int64_t i = 0; i < group_sizes[g]; ++i) {
        offsets.push_back(static_cast<int32_t>(3 * offsets.size() % 64));  // 64 and 3 have no common divisor
        bias.push_back(static_cast<float>(rng.below(3)));
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int i = 0; i < 64; ++i)
        scores.push_back(static_cast<float>(rng.below(6)) - (r % 3 == 0 ? 1e4f : 0));  // ties
      for (size_t g = 0; g < group_sizes.size(); ++g)
        added.push_back(g == 0 || rng.below(2) ? 0.5f * static_cast<float>(rng.below(3)) : -INFINITY);
      for (size_t g = 0, i = 0; g < group_sizes.size(); i += static_cast<size_t>(group_sizes[g++])) {
        if (added[static_cast<size_t>(r) * group_sizes.size() + g] != -INFINITY) continue;
        for (size_t j = i; j < i + static_cast<size_t>(group_sizes[g]); ++j)  // what is barred was never computed
          scores[static_cast<size_t>(64 * r + offsets[j])] = nan;
      }
    }
  }
  Candidates candidates() const { return {scores.data(), 64, offsets, bias, group_sizes, added.data()}; }
};

TEST(TopK, EqualsTheScalarTwin) {
  uint64_t seed = 1;
  for (const auto& sizes : {std::vector<int64_t>{5}, {7, 2, 3}, {4, 16, 1, 30}}) {
    for (const int64_t rows : {1, 2, 15, 16, 17, 40}) {
      for (const int64_t k : {1, 2, 4}) {
        const Case one(sizes, rows, k, ++seed);
        std::vector<int32_t> ids(static_cast<size_t>(rows * k)), expected_ids = ids;
        std::vector<float> weights(ids.size()), expected = weights;
        ASSERT_TRUE(top_k(one.candidates(), rows, k, ids.data(), weights.data()));
        ASSERT_TRUE(ref::top_k(one.candidates(), rows, k, expected_ids.data(), expected.data()));
        EXPECT_EQ(ids, expected_ids);
        for (size_t i = 0; i < weights.size(); ++i) EXPECT_NEAR(weights[i], expected[i], 1e-6) << i;
        // A row alone has the same bits.
        Candidates last = one.candidates();
        last.scores += 64 * (rows - 1);
        last.added += (rows - 1) * static_cast<int64_t>(last.group_sizes.size());
        std::vector<int32_t> last_ids(static_cast<size_t>(k));
        std::vector<float> last_weights(static_cast<size_t>(k));
        ASSERT_TRUE(top_k(last, 1, k, last_ids.data(), last_weights.data()));
        EXPECT_TRUE(std::equal(last_ids.begin(), last_ids.end(), ids.end() - k));
        EXPECT_TRUE(std::equal(last_weights.begin(), last_weights.end(), weights.end() - k));
      }
    }
  }
}

TEST(TopK, KeysThatAreNotFiniteAndTooFewCandidatesAreSeen) {
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
    Case one({7, 2}, 20, 2, 9);
    one.scores[static_cast<size_t>(64 * 18 + one.offsets[3])] = bad;
    std::vector<int32_t> ids(40);
    std::vector<float> weights(40);
    EXPECT_FALSE(top_k(one.candidates(), 20, 2, ids.data(), weights.data()));
    EXPECT_FALSE(ref::top_k(one.candidates(), 20, 2, ids.data(), weights.data()));
    EXPECT_TRUE(top_k(one.candidates(), 18, 2, ids.data(), weights.data()));
  }
  Case few({1, 2}, 3, 2, 9);
  std::fill(few.scores.begin(), few.scores.end(), 1.0f);
  few.added = {0, 0, 0, 0, 0, -INFINITY};
  std::vector<int32_t> ids(6);
  std::vector<float> weights(6);
  EXPECT_TRUE(top_k(few.candidates(), 2, 2, ids.data(), weights.data()));
  EXPECT_FALSE(top_k(few.candidates(), 3, 2, ids.data(), weights.data()));
}

}  // namespace
}  // namespace tessera
