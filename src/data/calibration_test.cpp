#include "data/calibration.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace tessera {
namespace {

// Texts whose labels are drawn from softmax(true_logits); what level 1 says is those logits times `sharpness`.
std::vector<TextDecisions> sharpened(double sharpness, double spread = 2) {
  Rng rng(7);
  std::vector<TextDecisions> texts(400);
  for (TextDecisions& text : texts) {
    for (int c = 0; c < 8; ++c) {
      const double x = spread * rng.normal(), p = 1 / (1 + std::exp(-x));
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
  DomainRouter router;
  EXPECT_GT(calibration_error(texts, 2, router), 0.08);
  router.temperature = fit_temperature(texts, 2, router);
  EXPECT_NEAR(router.temperature, 3.0, 0.4);
  EXPECT_LT(calibration_error(texts, 2, router), 0.03);
  DomainRouter other = router;
  for (double times : {0.8, 1.25}) {
    other.temperature = times * router.temperature;
    EXPECT_LT(cross_entropy(texts, 2, router), cross_entropy(texts, 2, other));
  }
}

TEST(Calibration, FloorUndoesThatEveryDomainIsAlwaysPossible) {
  // What level 1 says is 0.8 of the truth and 0.1 for each of two domains.
  auto texts = sharpened(1, 6);
  for (TextDecisions& text : texts) {
    for (size_t c = 0; c < text.tokens_C.size(); ++c) {
      float* logits = &text.logits_CM[2 * c];
      const float p = 1 / (1 + std::exp(logits[1] - logits[0]));
      logits[0] = std::log(0.8f * p + 0.1f), logits[1] = std::log(0.8f * (1 - p) + 0.1f);
    }
  }
  DomainRouter router;
  EXPECT_GT(calibration_error(texts, 2, router), 0.04);
  calibrate(texts, 2, router);
  EXPECT_GT(router.floor, 0.05);
  EXPECT_LT(calibration_error(texts, 2, router), 0.01);
  DomainRouter without;
  without.temperature = fit_temperature(texts, 2, without);
  EXPECT_LT(calibration_error(texts, 2, router), 0.7 * calibration_error(texts, 2, without));
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
  DomainRouter router;
  const MarginChoice choice = choose_margin(texts, 3, router);
  EXPECT_NEAR(choice.margin, 0.25, 1e-9);  // the first step above 0.62 - 0.38
  EXPECT_DOUBLE_EQ(choice.covered, 1.0);
  EXPECT_DOUBLE_EQ(choice.mean_active, 1.5);
  router.margin = 0.1;
  EXPECT_DOUBLE_EQ(measure_margin(texts, 3, router).covered, 0.5);
}

}  // namespace
}  // namespace tessera
