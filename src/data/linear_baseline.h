// The humble baseline of level 1: a linear classifier over a bag of tokens (softmax regression on the square roots of
// the counts, scaled to length 1).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "data/domain_sampler.h"

namespace tessera {

class LinearBaseline {
 public:
  // Learns from `num_texts` texts of 64 to 512 tokens that the sampler draws; the same seed gives the same weights.
  LinearBaseline(const DomainSampler& sampler, int vocab_size, uint64_t seed, int num_texts = 20000);
  int classify(std::span<const int32_t> tokens) const;  // the most probable class

 private:
  struct Feature {
    int32_t token;
    float value;
  };
  static std::vector<Feature> features(std::span<const int32_t> tokens);
  std::vector<float> scores(const std::vector<Feature>& features) const;

  size_t num_classes_;
  std::vector<float> weights_VM_, bias_M_;
};

}  // namespace tessera
