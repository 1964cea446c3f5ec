#include "data/linear_baseline.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace tessera {
namespace {

constexpr double kScale = 20, kLearningRate = 0.1, kWeightDecay = 1e-5;
constexpr int kEpochs = 4, kLengths[] = {64, 128, 256, 512};

}  // namespace

std::vector<LinearBaseline::Feature> LinearBaseline::features(std::span<const int32_t> tokens) {
  std::vector<int32_t> sorted(tokens.begin(), tokens.end());
  std::sort(sorted.begin(), sorted.end());
  std::vector<Feature> features;
  for (int32_t token : sorted) {
    if (features.empty() || features.back().token != token) features.push_back({token, 0});
    features.back().value += 1;
  }
  // The squares of the roots sum to the number of tokens.
  const double norm = std::sqrt(std::max<double>(1, static_cast<double>(tokens.size())));
  for (Feature& f : features) f.value = static_cast<float>(kScale * std::sqrt(f.value) / norm);
  return features;
}

std::vector<float> LinearBaseline::scores(const std::vector<Feature>& features) const {
  std::vector<float> scores = bias_M_;
  for (const Feature& f : features) {
    for (size_t c = 0; c < num_classes_; ++c)
      scores[c] += f.value * weights_VM_[static_cast<size_t>(f.token) * num_classes_ + c];
  }
  return scores;
}

LinearBaseline::LinearBaseline(const DomainSampler& sampler, int vocab_size, uint64_t seed, int num_texts)
    : num_classes_(static_cast<size_t>(sampler.num_classes())),
      weights_VM_(static_cast<size_t>(vocab_size) * num_classes_, 0.0f),
      bias_M_(num_classes_, 0.0f) {
  Rng rng(seed, 0x11ea);
  std::vector<std::vector<Feature>> texts;
  std::vector<size_t> labels;
  for (int i = 0; i < num_texts; ++i) {
    const LabelledText text = sampler.draw(rng, kLengths[rng.below(std::size(kLengths))], 0);
    texts.push_back(features(std::span(text.tokens).subspan(1)));
    labels.push_back(static_cast<size_t>(text.labels[0]));
  }
  // AdaGrad, one text at a time.
  std::vector<float> squares(weights_VM_.size(), 1e-6f);
  const int64_t steps = static_cast<int64_t>(kEpochs) * num_texts;
  for (int64_t step = 0; step < steps; ++step) {
    const size_t i = rng.below(texts.size());
    std::vector<float> p = scores(texts[i]);
    const float highest = *std::max_element(p.begin(), p.end());
    float sum = 0;
    for (float& x : p) sum += x = std::exp(x - highest);
    const double rate = kLearningRate * (1 - static_cast<double>(step) / static_cast<double>(steps));
    for (size_t c = 0; c < num_classes_; ++c) {
      const float error = p[c] / sum - (c == labels[i] ? 1.0f : 0.0f);
      bias_M_[c] -= static_cast<float>(0.1 * rate) * error;
      for (const Feature& f : texts[i]) {
        const size_t at = static_cast<size_t>(f.token) * num_classes_ + c;
        const float gradient = error * f.value + static_cast<float>(kWeightDecay) * weights_VM_[at];
        squares[at] += gradient * gradient;
        weights_VM_[at] -= static_cast<float>(rate) * gradient / std::sqrt(squares[at]);
      }
    }
  }
}

int LinearBaseline::classify(std::span<const int32_t> tokens) const {
  const std::vector<float> s = scores(features(tokens));
  return static_cast<int>(std::max_element(s.begin(), s.end()) - s.begin());
}

}  // namespace tessera
