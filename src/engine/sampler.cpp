#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/log.h"
#include "base/rng.h"

namespace tessera::engine {

void check(const SamplerOptions& options) {
  const auto within = [](const char* name, double value, double least, double most) {
    if (value >= least && value <= most) return;  // false for what is no number
    throw Error(ErrorCode::kUsage, fmt::format("{}: expected {} to {}, found {}", name, least, most, value));
  };
  within("temperature", options.temperature, 0, 100);
  within("top_k", options.top_k, 0, 1 << 24);
  within("top_p", options.top_p, 0, 1);
  within("min_p", options.min_p, 0, 1);
  within("repetition_penalty", options.repetition_penalty, 0.01, 100);
}

int32_t sample(std::span<float> logits, std::span<const int32_t> text, const SamplerOptions& options) {
  if (options.repetition_penalty != 1.0) {
    const float penalty = static_cast<float>(options.repetition_penalty);
    std::vector<uint8_t> is_done(logits.size(), 0);
    for (int32_t token : text) {
      if (std::exchange(is_done[static_cast<size_t>(token)], 1)) continue;
      float& logit = logits[static_cast<size_t>(token)];
      logit = logit > 0 ? logit / penalty : logit * penalty;
    }
  }
  const auto best = std::max_element(logits.begin(), logits.end());
  if (options.temperature <= 0) return static_cast<int32_t>(best - logits.begin());

  const float largest = *best;
  const auto share = [&](int32_t token) {
    return std::exp((static_cast<double>(logits[static_cast<size_t>(token)]) - largest) / options.temperature);
  };
  const auto is_less = [&](int32_t a, int32_t b) {  // ties: the lower id first
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x < y : a > b;
  };
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  if (options.top_k > 0 && static_cast<size_t>(options.top_k) < order.size()) {
    std::nth_element(order.begin(), order.begin() + options.top_k, order.end(),
                     [&](int32_t a, int32_t b) { return is_less(b, a); });
    order.resize(static_cast<size_t>(options.top_k));
    std::sort(order.begin(), order.end());  // the sum below is then in a fixed order
  }
  double total = 0;
  for (int32_t token : order) total += share(token);
  // The most probable ones come off a heap: few are needed of a large vocabulary.
  std::make_heap(order.begin(), order.end(), is_less);
  std::vector<int32_t> kept;
  std::vector<double> shares;
  double sum = 0;
  for (auto end = order.end(); end != order.begin();) {
    std::pop_heap(order.begin(), end, is_less);
    const int32_t token = *--end;
    const double p = share(token);
    if (!kept.empty() && p < options.min_p) break;
    kept.push_back(token);
    shares.push_back(p);
    sum += p;
    if (sum >= options.top_p * total) break;
  }
  double u = Rng(options.seed, text.size()).uniform() * sum;
  for (size_t i = 0; i < kept.size(); ++i) {
    u -= shares[i];
    if (u < 0) return kept[i];
  }
  return kept.back();
}

}  // namespace tessera::engine
