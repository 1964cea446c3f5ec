#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/rng.h"
#include "base/threads.h"

namespace tessera {
namespace {

TEST(ParallelForTest, VisitsEachIndexOnce) {
  for (const int64_t n : {0, 1, 2, 7, 1000}) {
    for (const int num_threads : {0, 1, 2, 5}) {
      for (const int64_t grain : {1, 3, 1024}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
        parallel_for(
            n, [&](int64_t i) { ++visits[static_cast<size_t>(i)]; }, num_threads, grain);
        for (int64_t i = 0; i < n; ++i) {
          ASSERT_EQ(visits[static_cast<size_t>(i)], 1) << i << " of " << n << ", " << num_threads << " threads";
        }
      }
    }
  }
}

TEST(ParallelForTest, UsesTheThreadsItIsGiven) {
  std::atomic<int> inside = 0;
  parallel_for(
      2,
      [&](int64_t) {
        ++inside;
        while (inside < 2) std::this_thread::yield();  // ends only when both indices are worked on at once
      },
      2);
  EXPECT_EQ(inside, 2);
  EXPECT_GE(num_cpus(), 1);
}

TEST(ParallelForTest, RethrowsAndStops) {
  for (const int num_threads : {1, 4}) {
    std::atomic<int> visits = 0;
    try {
      parallel_for(
          1'000'000,
          [&](int64_t i) {
            ++visits;
            if (i == 3) throw std::invalid_argument("index 3");
          },
          num_threads);
      ADD_FAILURE() << "the exception was lost";
    } catch (const std::invalid_argument& e) {
      EXPECT_STREQ(e.what(), "index 3");
    }
    if (num_threads == 1) {
      EXPECT_EQ(visits, 4);
    }
  }
}

TEST(ParallelForTest, EveryBodyThrows) {
  EXPECT_THROW(parallel_for(
                   64, [](int64_t) { throw std::runtime_error("each"); }, 4),
               std::runtime_error);
}

TEST(RngTest, SameSeedSameNumbers) {
  Rng a(7, 3), b(7, 3);
  std::vector<uint64_t> drawn;
  for (int i = 0; i < 100; ++i) {
    drawn.push_back(a.next());
    EXPECT_EQ(drawn.back(), b.next());
  }
  EXPECT_EQ(a.counter(), 100u);
  Rng resumed(7, 3);  // the counter is the whole state
  resumed.set_counter(40);
  for (size_t i = 40; i < 100; ++i) EXPECT_EQ(resumed.next(), drawn[i]);
}

TEST(RngTest, SeedsAndStreamsDiffer) {
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (uint64_t stream = 0; stream < 20; ++stream) {
      Rng rng(seed, stream);
      for (int i = 0; i < 10; ++i) seen.insert(rng.next());
    }
  }
  EXPECT_EQ(seen.size(), 20u * 20u * 10u);
}

// Committed values: a change of the generator changes every run's data order, which must be a decision.
TEST(RngTest, MixIsSplitMix64) {
  EXPECT_EQ(mix64(0), 0xe220a8397b1dcdafull);  // the first outputs for the seeds 0 and 0x9e37...15
  EXPECT_EQ(mix64(0x9e3779b97f4a7c15ull), 0x6e789e6aa1b965f4ull);
}

TEST(RngTest, UniformFillsItsRange) {
  Rng rng(11);
  std::vector<int> counts(16);
  double sum = 0;
  for (int i = 0; i < 32000; ++i) {
    const double u = rng.uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++counts[static_cast<size_t>(u * 16)];
    sum += u;
  }
  EXPECT_NEAR(sum / 32000, 0.5, 0.01);
  for (int count : counts) EXPECT_NEAR(count, 2000, 250);  // 5.8 standard deviations
}

TEST(RngTest, BelowIsUniformAndInRange) {
  Rng rng(5);
  std::vector<int> counts(7);
  for (int i = 0; i < 14000; ++i) {
    const uint64_t drawn = rng.below(7);
    ASSERT_LT(drawn, 7u);
    ++counts[drawn];
  }
  for (int count : counts) EXPECT_NEAR(count, 2000, 250);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(rng.below(1), 0u);
    EXPECT_LT(rng.below(uint64_t{1} << 63), uint64_t{1} << 63);
  }
}

TEST(RngTest, NormalHasMeanZeroAndVarianceOne) {
  Rng rng(3);
  double sum = 0, squares = 0;
  const int n = 40000;
  for (int i = 0; i < n; ++i) {
    const double x = rng.normal();
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / n, 0.0, 0.03);
  EXPECT_NEAR(squares / n, 1.0, 0.05);
}

}  // namespace
}  // namespace tessera
