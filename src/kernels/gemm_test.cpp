#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

extern "C" char* openblas_get_corename(void);

namespace tessera {
namespace {

std::vector<float> numbers(int64_t n, int seed) {
  std::vector<float> v(static_cast<size_t>(n));
  for (size_t i = 0; i < v.size(); ++i)
    v[i] = static_cast<float>((i * 2654435761u + static_cast<size_t>(seed) * 97) % 1000) / 500 - 1;
  return v;
}

float at(const std::vector<float>& m, int64_t stride, bool transposed, int64_t i, int64_t j) {
  return m[static_cast<size_t>(transposed ? j * stride + i : i * stride + j)];
}

#if defined(__x86_64__)
TEST(Gemm, HasKernelsForTheInstructionsOfThisCpu) {
  const std::string kernels = openblas_get_corename();
  if (__builtin_cpu_supports("avx512vl")) {
    EXPECT_EQ(kernels, "SkylakeX");
  } else if (__builtin_cpu_supports("avx2")) {
    EXPECT_EQ(kernels, "Haswell");
  }
}
#endif

TEST(Gemm, EqualsTheSumsInEveryOrderOfMemory) {
  constexpr int64_t m = 7, n = 5, k = 9, stride = 11;
  const auto a = numbers(stride * stride, 1), b = numbers(stride * stride, 2), before = numbers(stride * stride, 3);
  for (int order = 0; order < 4; ++order) {
    const bool ta = order & 1, tb = order & 2;
    auto c = before;
    gemm(m, n, k, {a.data(), stride, ta}, {b.data(), stride, tb}, c.data(), stride, 0.5f, 2.0f);
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        float sum = 0.5f * at(before, stride, false, i, j);
        for (int64_t p = 0; p < k; ++p) sum += 2 * at(a, stride, ta, i, p) * at(b, stride, tb, p, j);
        ASSERT_NEAR(at(c, stride, false, i, j), sum, 1e-4);
      }
    }
  }
}

TEST(Gemm, Gram) {
  constexpr int64_t n = 13, k = 6;
  const auto a = numbers(n * k, 1);
  std::vector<float> c(n * n), expected(n * n);
  gram(n, k, a.data(), k, c.data());
  gemm(n, n, k, {a.data(), k}, {a.data(), k, true}, expected.data(), n);
  for (size_t i = 0; i < c.size(); ++i) ASSERT_NEAR(c[i], expected[i], 1e-4) << i;
}

// OpenBLAS has builds that may not be called from several threads at a time.
TEST(Gemm, ManyThreadsAtATime) {
  constexpr int64_t n = 96;
  const auto a = numbers(n * n, 1), b = numbers(n * n, 2);
  std::vector<float> expected(n * n);
  gemm(n, n, n, {a.data(), n}, {b.data(), n}, expected.data(), n);
  std::vector<std::vector<float>> results(4, std::vector<float>(n * n));
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) gemm(n, n, n, {a.data(), n}, {b.data(), n}, result.data(), n);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) ASSERT_EQ(result, expected);
}

}  // namespace
}  // namespace tessera
