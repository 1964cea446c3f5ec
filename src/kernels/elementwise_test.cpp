#include "kernels/elementwise.h"

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <random>
#include <vector>

#include "kernels/attention.h"

namespace tessera {
namespace {

std::vector<float> random_vector(int64_t n, int seed, float spread = 1) {
  std::mt19937 generator(static_cast<uint32_t>(seed));
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = normal(generator);
  return v;
}

void expect_near(const std::vector<float>& got, const std::vector<float>& expected, float bound = 2e-5f) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(got[i], expected[i], bound * (1 + std::abs(expected[i]))) << "element " << i;
}

// Every instruction set that this CPU has, at widths around the vector length.
class Elementwise : public testing::TestWithParam<std::tuple<int64_t, int64_t>> {
 protected:
  void SetUp() override {
    target_ = std::get<0>(GetParam());
    hwy::SetSupportedTargetsForTest(target_);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  int64_t target_ = 0;
  const int64_t width_ = std::get<1>(GetParam()), rows_ = 3;
};

TEST_P(Elementwise, RoundToBf16) {
  auto x = random_vector(rows_ * width_, 4, 100);
  const float odd[] = {NAN,
                       -NAN,
                       INFINITY,
                       -INFINITY,
                       -0.0f,
                       1.00390625f,
                       1.01171875f,
                       3.4e38f,
                       1e-40f,
                       std::bit_cast<float>(0x7F800001u),
                       std::bit_cast<float>(0xFFFFFFFFu)};
  for (size_t i = 0; i < std::min(x.size(), std::size(odd)); ++i) x[i] = odd[i];
  std::vector<uint16_t> got(x.size()), expected(x.size());
  round_to_bf16(x.data(), static_cast<int64_t>(x.size()), got.data());
  ref::round_to_bf16(x.data(), static_cast<int64_t>(x.size()), expected.data());
  EXPECT_EQ(got, expected);
  round_to_bf16(x.data(), static_cast<int64_t>(x.size()), reinterpret_cast<uint16_t*>(x.data()));
  std::memcpy(got.data(), x.data(), got.size() * 2);
  EXPECT_EQ(got, expected);
}

TEST_P(Elementwise, Swiglu) {
  auto gate_up = random_vector(rows_ * 2 * width_, 1, 3);
  const float far[] = {-105, -178, -200, -1000, 300};  // where exp overflows, and Highway's gives anything
  for (int64_t i = 0; i < std::min<int64_t>(5, width_); ++i) gate_up[static_cast<size_t>(i)] = far[i];
  const auto grad = random_vector(rows_ * (width_ + 2), 2);
  const auto scale = random_vector(rows_, 3);
  const size_t n = static_cast<size_t>(rows_ * (width_ + 1));
  std::vector<float> out(n), expected(n), back(gate_up.size()), expected_back(gate_up.size());
  swiglu_forward(gate_up.data(), rows_, width_, out.data(), width_ + 1);
  ref::swiglu_forward(gate_up.data(), rows_, width_, expected.data(), width_ + 1);
  expect_near(out, expected);
  std::vector<float> dots(3, 0.5f), expected_dots(3, 0.5f), again(n), expected_again(n);
  swiglu_backward(gate_up.data(), grad.data(), width_ + 2, rows_, width_, scale.data(), back.data(), again.data(),
                  width_ + 1, dots.data());
  ref::swiglu_backward(gate_up.data(), grad.data(), width_ + 2, rows_, width_, scale.data(), expected_back.data(),
                       expected_again.data(), width_ + 1, expected_dots.data());
  expect_near(back, expected_back);
  expect_near(again, expected_again);
  expect_near(dots, expected_dots, 1e-4f);
}

TEST_P(Elementwise, RmsNorm) {
  const auto x = random_vector(rows_ * width_, 1), weight = random_vector(width_, 2);
  const auto grad = random_vector(rows_ * width_, 3);
  std::vector<float> y(x.size()), expected(x.size()), inverse(3), expected_inverse(3);
  rms_norm_forward(x.data(), weight.data(), rows_, width_, 1e-5f, y.data(), inverse.data());
  ref::rms_norm_forward(x.data(), weight.data(), rows_, width_, 1e-5f, expected.data(), expected_inverse.data());
  expect_near(y, expected);
  expect_near(inverse, expected_inverse);
  std::vector<float> gx(x.size()), expected_gx(x.size()), gw(weight.size(), 1), expected_gw(weight.size(), 1);
  rms_norm_backward(x.data(), weight.data(), inverse.data(), grad.data(), rows_, width_, gx.data(), gw.data());
  ref::rms_norm_backward(x.data(), weight.data(), inverse.data(), grad.data(), rows_, width_, expected_gx.data(),
                         expected_gw.data());
  expect_near(gx, expected_gx, 1e-4f);
  expect_near(gw, expected_gw, 1e-4f);
}

TEST_P(Elementwise, RotationAndItsInverse) {
  const int64_t head_dim = 2 * width_;
  const auto cos = random_vector(rows_ * width_, 1), sin = random_vector(rows_ * width_, 2);
  const auto x = random_vector(rows_ * 2 * head_dim, 3);
  for (float sign : {1.0f, -1.0f}) {
    auto got = x, expected = x;
    rotate_heads(got.data(), rows_, 2, head_dim, cos.data(), sin.data(), sign);
    ref::rotate_heads(expected.data(), rows_, 2, head_dim, cos.data(), sin.data(), sign);
    expect_near(got, expected);
  }
}

TEST_P(Elementwise, SoftmaxAndItsGradient) {
  const auto scores = random_vector(width_, 1, 5), grads = random_vector(width_, 2);
  auto got = scores, expected = scores;
  const float total = softmax(got.data(), width_), expected_total = ref::softmax(expected.data(), width_);
  EXPECT_NEAR(total, expected_total, 1e-4f);
  expect_near(got, expected);
  auto again = scores;
  exp_minus(again.data(), width_, total);
  expect_near(again, expected);
  auto back = grads, expected_back = grads;
  softmax_gradient(got.data(), back.data(), width_, 0.3f, 0.5f);
  ref::softmax_gradient(expected.data(), expected_back.data(), width_, 0.3f, 0.5f);
  expect_near(back, expected_back);
}

TEST_P(Elementwise, SumsAndUpdates) {
  const auto a = random_vector(width_, 1), b = random_vector(width_, 2);
  EXPECT_NEAR(dot(a.data(), b.data(), width_), ref::dot(a.data(), b.data(), width_), 1e-3f);
  EXPECT_NEAR(sum_of_squares(a.data(), width_), ref::sum_of_squares(a.data(), width_), 1e-3);
  auto y = b, expected_y = b;
  axpy(0.7f, a.data(), y.data(), width_);
  ref::axpy(0.7f, a.data(), expected_y.data(), width_);
  expect_near(y, expected_y);
  auto p = a, m = b, v = a, expected_p = a, expected_m = b, expected_v = a;
  for (float& x : v) x = std::abs(x);
  expected_v = v;
  const AdamWStep step{0.01f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.1f, 0.05f, 0.6f};
  adamw(p.data(), b.data(), m.data(), v.data(), width_, step);
  ref::adamw(expected_p.data(), b.data(), expected_m.data(), expected_v.data(), width_, step);
  expect_near(p, expected_p);
  expect_near(m, expected_m);
  expect_near(v, expected_v);
}

INSTANTIATE_TEST_SUITE_P(Targets, Elementwise,
                         testing::Combine(testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                                          testing::Values(1, 5, 8, 26, 31, 64, 4099)),
                         [](const auto& info) {
                           return std::string(hwy::TargetName(std::get<0>(info.param))) + "_" +
                                  std::to_string(std::get<1>(info.param));
                         });

// Attention against the plain formula, for masks as packed pieces and windows make them.
TEST(Attention, EqualsThePlainFormulaAndItsFiniteDifferences) {
  const int64_t tokens = 150, heads = 4, kv_heads = 2, h = 6, window = 40, piece = 70;
  std::vector<int32_t> begin, end;
  for (int32_t t = 0; t < tokens; ++t) {
    begin.push_back(std::max(t >= piece ? static_cast<int32_t>(piece) : 0, t - static_cast<int32_t>(window)));
    end.push_back(std::min<int32_t>(t >= piece ? tokens : static_cast<int32_t>(piece), (t / 16 + 1) * 16));
  }
  const AttentionRow row{tokens, heads, kv_heads, h, begin.data(), end.data()};
  auto query = random_vector(tokens * heads * h, 1), key = random_vector(tokens * kv_heads * h, 2);
  auto value = random_vector(tokens * kv_heads * h, 3);
  const auto grad = random_vector(tokens * heads * h, 4);
  // In double, so that finite differences mean something.
  auto plain = [&](std::vector<double>* out) {
    double total = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t kv = head / (heads / kv_heads);
        std::vector<double> p;
        double sum = 0;
        for (int64_t j = begin[static_cast<size_t>(t)]; j < end[static_cast<size_t>(t)]; ++j) {
          double score = 0;
          for (int64_t i = 0; i < h; ++i)
            score += static_cast<double>(query[static_cast<size_t>((t * heads + head) * h + i)]) *
                     key[static_cast<size_t>((j * kv_heads + kv) * h + i)];
          p.push_back(std::exp(score / std::sqrt(static_cast<double>(h))));
          sum += p.back();
        }
        for (int64_t i = 0; i < h; ++i) {
          double mixed = 0;
          for (size_t j = 0; j < p.size(); ++j)
            mixed += p[j] / sum *
                     value[static_cast<size_t>(
                         ((begin[static_cast<size_t>(t)] + static_cast<int64_t>(j)) * kv_heads + kv) * h + i)];
          if (out) out->push_back(mixed);
          total += mixed * grad[static_cast<size_t>((t * heads + head) * h + i)];
        }
      }
    }
    return total;
  };
  std::vector<double> expected;
  plain(&expected);
  std::vector<float> out(query.size()), log_sum_exp(static_cast<size_t>(heads * tokens));
  for (int64_t head = 0; head < heads; ++head)
    attention_forward(row, head, query.data(), key.data(), value.data(), out.data(), log_sum_exp.data());
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 2e-5) << i;

  std::vector<float> gq(query.size()), gk(key.size()), gv(value.size());
  for (int64_t kv = 0; kv < kv_heads; ++kv)
    attention_backward(row, kv, query.data(), key.data(), value.data(), out.data(), log_sum_exp.data(), grad.data(),
                       gq.data(), gk.data(), gv.data());
  auto check = [&](std::vector<float>& input, const std::vector<float>& got) {
    for (size_t i = 0; i < input.size(); i += input.size() / 29) {
      const float saved = input[i];
      constexpr float kStep = 1.0f / 512;
      input[i] = saved + kStep;
      const double above = plain(nullptr);
      input[i] = saved - kStep;
      const double below = plain(nullptr);
      input[i] = saved;
      ASSERT_NEAR(got[i], (above - below) / (2 * kStep), 2e-4) << i;
    }
  };
  check(query, gq);
  check(key, gk);
  check(value, gv);
}

}  // namespace
}  // namespace tessera
