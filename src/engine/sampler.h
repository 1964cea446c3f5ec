// From logits to a token. The random number depends on the seed and the token's place in its text alone, so a text is
// the same on any number of threads and in any batch.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tessera::engine {

struct SamplerOptions {
  double temperature = 0.8;         // 0: the most probable token
  int top_k = 0;                    // 0: all
  double top_p = 0.95;              // the fewest tokens whose probabilities reach it (Holtzman et al. 2020)
  double min_p = 0.0;               // at least so many times the best one's probability
  double repetition_penalty = 1.0;  // Keskar et al. 2019: divides positive logits of tokens in the text, multiplies
                                    // negative ones
  uint64_t seed = 1;
};

// Throws Error{kUsage} for a value out of range, or no number.
void check(const SamplerOptions& options);

// `logits_V` is changed. `text`: the tokens so far, prompt included; the new one's place is text.size().
int32_t sample(std::span<float> logits_V, std::span<const int32_t> text, const SamplerOptions& options);

}  // namespace tessera::engine
