// What evaluation and benchmarks are written against; trainer and engine implement it.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/route.h"

namespace tessera {

struct ScoredText {
  std::vector<float> log_probs;  // [T-1] natural log of p(tokens[i+1] | tokens[0..i])
  Route route;                   // of tokens[0..T-2]
};

class Scorer {
 public:
  virtual ~Scorer() = default;
  virtual int vocab_size() const = 0;
  virtual int context_length() const = 0;  // most tokens of a text, the start token included
  // Scores texts, each beginning with the start token, each independent of the others. `domain_labels` [texts], when
  // given, are the routed domain of each text for an oracle router (-1: unknown). `replay` forces the routes.
  virtual std::vector<ScoredText> score(std::span<const std::vector<int32_t>> texts,
                                        std::span<const int> domain_labels = {},
                                        std::span<const Route> replay = {}) = 0;
};

}  // namespace tessera
