#include "data/calibration.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace tessera {
namespace {

// Texts whose labels are drawn from softmax(true_logits); what level 1 says is those logits times `sharpness`.
std::vector<TextDecisions> sharpened(double sharpness) {
  Rng rng(7);
  std::vector<TextDecisions> texts(400);
  for (TextDecisions& text : texts) {
    for (int c = 0; c < 8; ++c) {
      const double x = 2 * rng.normal(), p = 1 / (1 + std::exp(-x));
      text.logits_CM.insert(text.logits_CM.end(), {static_cast<float>(sharpness * x), 0.0f});
      const bool first = rng.uniform() < p;
      text.targets_CM.insert(text.targets_CM.end(), {first ? 1.0f : 0.0f, first ? 0.0f : 1.0f});
      text.tokens_C.push_back(64);
    }
  }
  return texts;
}

TEST(Calibration, TemperatureUndoesOverconfidence) {
  const auto texts = sharpened(3.0);
  const double temperature = fit_temperature(texts, 2);
  EXPECT_NEAR(temperature, 3.0, 0.4);
  EXPECT_LT(calibration_error(texts, 2, temperature), 0.03);
  EXPECT_LT(cross_entropy(texts, 2, temperature), cross_entropy(texts, 2, 0.8 * temperature));
  EXPECT_LT(cross_entropy(texts, 2, temperature), cross_entropy(texts, 2, 1.25 * temperature));
  EXPECT_GT(calibration_error(texts, 2, 1.0), 0.08);
}

TEST(Calibration, MarginGrowsUntilTheSecondDomainIsCovered) {
  // Half of the texts are sure and right; in the other half the truth is the second, 0.38 against 0.62.
  std::vector<TextDecisions> texts(100);
  for (size_t i = 0; i < texts.size(); ++i) {
    const bool sure = i % 2 == 0;
    texts[i].logits_CM = sure ? std::vector<float>{5, 0, 0} : std::vector<float>{std::log(0.62f), std::log(0.38f), -9};
    texts[i].targets_CM = sure ? std::vector<float>{1, 0, 0} : std::vector<float>{0, 1, 0};
    texts[i].tokens_C = {64};
  }
  const MarginChoice choice = choose_margin(texts, 3, 1.0, 0.1);
  EXPECT_NEAR(choice.margin, 0.25, 1e-9);  // the first step above 0.62 - 0.38
  EXPECT_DOUBLE_EQ(choice.covered, 1.0);
  EXPECT_DOUBLE_EQ(choice.mean_active, 1.5);
  EXPECT_DOUBLE_EQ(measure_margin(texts, 3, 1.0, 0.1, 0.1).covered, 0.5);
}

}  // namespace
}  // namespace tessera
