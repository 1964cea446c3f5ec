#include "train/products.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "train/precompiled.h"

namespace tessera {
namespace {

// As this CPU multiplies a model in f32 and one in bf16, against exact products of the factors, rounded for bf16.
TEST(Products, AreThoseOfRoundedFactors) {
  at::manual_seed(3);
  for (const bool in_bf16 : {false, multiplies_bf16(at::kBFloat16)}) {
    for (const auto& [m, n, k] : {std::tuple{1, 1, 1}, {37, 50, 23}, {130, 96, 200}, {5, 300, 7}}) {
      for (const auto& [a_turned, b_turned] : {std::pair{false, false}, {true, false}, {false, true}, {true, true}}) {
        // Parts of wider matrices, the first `skipped` columns left out.
        constexpr int64_t kSkipped = 3;
        const auto part_of = [](const at::Tensor& t) { return t.narrow(1, kSkipped, t.size(1) - kSkipped); };
        const at::Tensor a = at::randn({a_turned ? k : m, (a_turned ? m : k) + kSkipped}),
                         b = at::randn({b_turned ? n : k, (b_turned ? k : n) + kSkipped}), c = at::randn({m, n + 1});
        const at::Tensor rounded_a = a.to(at::kBFloat16), rounded_b = b.to(at::kBFloat16);
        const at::Tensor left = part_of(in_bf16 ? rounded_a.to(at::kDouble) : a.to(at::kDouble)),
                         right = part_of(in_bf16 ? rounded_b.to(at::kDouble) : b.to(at::kDouble));
        const at::Tensor expected = at::mm(a_turned ? left.t() : left, b_turned ? right.t() : right);
        const auto factor = [&](const at::Tensor& f32, const at::Tensor& bf16, bool as_bf16, bool turned) -> Factor {
          if (as_bf16) return {bf16.const_data_ptr<at::BFloat16>() + kSkipped, bf16.size(1), turned};
          return {f32.const_data_ptr<float>() + kSkipped, f32.size(1), turned};
        };
        for (const float keep : {0.0f, 1.0f, 0.5f}) {
          for (const bool given : {false, true}) {  // rounded by the caller
            if (given && !in_bf16) continue;
            const at::Tensor got = c.clone();
            if (keep == 0) got.narrow(1, 0, n).fill_(NAN);  // what is there is not read
            const float scale = keep == 1 ? 1.0f : 0.25f;
            product(in_bf16, m, n, k, factor(a, rounded_a, given, a_turned), factor(b, rounded_b, false, b_turned),
                    got.mutable_data_ptr<float>(), n + 1, keep, scale);
            const at::Tensor wanted = scale * expected + keep * c.narrow(1, 0, n).to(at::kDouble);
            EXPECT_LT((got.narrow(1, 0, n) - wanted).abs().max().item<double>(), 2e-6 * (k + 2))
                << m << " " << n << " " << k << " " << a_turned << b_turned << " " << keep << given << in_bf16;
            EXPECT_TRUE(at::equal(got.select(1, n), c.select(1, n)));
          }
        }
      }
    }
  }
}

// Bit-exact resume needs it: buffers lie elsewhere in another process.
TEST(Products, HaveTheSameBitsWhereverFactorsLie) {
  at::manual_seed(4);
  const bool in_bf16 = multiplies_bf16(at::kBFloat16);
  const at::Tensor a = at::randn({20000}), b = at::randn({20000});
  for (const auto& [m, n, k] : {std::tuple{128, 96, 64}, {37, 50, 23}, {2, 200, 33}}) {
    for (const auto& [a_turned, b_turned] : {std::pair{false, false}, {true, false}, {false, true}, {true, true}}) {
      at::Tensor first;
      for (const int64_t moved : {0, 1, 8, 16, 40}) {
        const auto lies_at = [&, moved = moved](const at::Tensor& t) {  // a multiple of 64 bytes, and `moved` numbers
          const at::Tensor whole = at::zeros({20064}, in_bf16 ? at::kBFloat16 : at::kFloat);
          whole.narrow(0, moved, 20000).copy_(t);
          return whole;
        };
        const at::Tensor here = lies_at(a), there = lies_at(b), c = at::empty({m, n});
        product(in_bf16, m, n, k, FactorTensor(here, in_bf16).from(moved, a_turned ? m : k, a_turned),
                FactorTensor(there, in_bf16).from(moved, b_turned ? k : n, b_turned), c.mutable_data_ptr<float>(), n);
        if (!first.defined()) first = c;
        EXPECT_TRUE(at::equal(first, c)) << m << " " << n << " " << k << " " << a_turned << b_turned << " " << moved;
      }
    }
  }
}

TEST(Products, FactorsOfATensor) {
  const at::Tensor t = at::arange(24, at::kFloat).view({4, 6}) / 3;
  const int32_t rows[] = {2, 0, 2};
  for (const bool in_bf16 : {false, true}) {
    const FactorTensor factor(t, in_bf16);
    const Factor one = factor.from(7, 6, true), some = factor.gathered(rows, 3, 6, 0),
                 whole = rounded(in_bf16, {t.const_data_ptr<float>(), 6}, 4, 6, 1);
    EXPECT_TRUE(one.transposed && !some.transposed && some.turned().transposed);
    const auto value = [&](const Factor& f, int64_t i) { return in_bf16 ? static_cast<float>(f.bf16[i]) : f.f32[i]; };
    const at::Tensor kept = in_bf16 ? t.to(at::kBFloat16).to(at::kFloat) : t;
    EXPECT_EQ(value(one, 0), kept[1][1].item<float>());
    for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(value(whole, i), kept.view({-1})[i].item<float>());
    for (int64_t i = 0; i < 18; ++i) EXPECT_EQ(value(some, i), kept[rows[i / 6]][i % 6].item<float>());
  }
}

TEST(Products, ABf16FactorOfAnF32ProductIsRefused) {
  const at::Tensor t = at::ones({2, 2}, at::kBFloat16), f = at::ones({2, 2});
  EXPECT_THROW(product(false, 2, 2, 2, {t.const_data_ptr<at::BFloat16>(), 2}, {f.const_data_ptr<float>(), 2},
                       f.mutable_data_ptr<float>(), 2),
               BugError);
}

}  // namespace
}  // namespace tessera
