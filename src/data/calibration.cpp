#include "data/calibration.h"

#include <algorithm>
#include <cmath>

#include "core/route.h"

namespace tessera {
namespace {

std::vector<float> softmax(const float* logits, size_t m, double temperature) {
  std::vector<float> p(m);
  const float highest = *std::max_element(logits, logits + m);
  double sum = 0;
  for (size_t d = 0; d < m; ++d) {
    p[d] = static_cast<float>(std::exp((logits[d] - highest) / temperature));
    sum += p[d];
  }
  for (float& x : p) x = static_cast<float>(x / sum);
  return p;
}

}  // namespace

double cross_entropy(const std::vector<TextDecisions>& texts, int num_domains, double temperature) {
  const size_t m = static_cast<size_t>(num_domains);
  double nats = 0, chunks = 0;
  for (const TextDecisions& text : texts) {
    chunks += static_cast<double>(text.tokens_C.size());
    for (size_t c = 0; c < text.tokens_C.size(); ++c) {
      const std::vector<float> p = softmax(&text.logits_CM[c * m], m, temperature);
      for (size_t d = 0; d < m; ++d)
        nats -= text.targets_CM[c * m + d] * std::log(std::max(static_cast<double>(p[d]), 1e-30));
    }
  }
  return chunks > 0 ? nats / chunks : 0;
}

double fit_temperature(const std::vector<TextDecisions>& texts, int num_domains) {
  // Golden section over log temperature: the cross-entropy is convex in 1/T, so it has one minimum.
  const double golden = (std::sqrt(5.0) - 1) / 2;
  double low = std::log(0.05), high = std::log(20.0);
  double a = high - golden * (high - low), b = low + golden * (high - low);
  double at_a = cross_entropy(texts, num_domains, std::exp(a)), at_b = cross_entropy(texts, num_domains, std::exp(b));
  while (high - low > 1e-3) {
    if (at_a < at_b) {
      high = b, b = a, at_b = at_a;
      a = high - golden * (high - low);
      at_a = cross_entropy(texts, num_domains, std::exp(a));
    } else {
      low = a, a = b, at_a = at_b;
      b = low + golden * (high - low);
      at_b = cross_entropy(texts, num_domains, std::exp(b));
    }
  }
  return std::exp((low + high) / 2);
}

double calibration_error(const std::vector<TextDecisions>& texts, int num_domains, double temperature) {
  constexpr int kBins = 15;
  const size_t m = static_cast<size_t>(num_domains);
  double confidence[kBins] = {}, right[kBins] = {}, count[kBins] = {}, all = 0;
  for (const TextDecisions& text : texts) {
    for (size_t c = 0; c < text.tokens_C.size(); ++c) {
      const std::vector<float> p = softmax(&text.logits_CM[c * m], m, temperature);
      const auto best = std::max_element(p.begin(), p.end()) - p.begin();
      const float* target = &text.targets_CM[c * m];
      const int bin = std::min(kBins - 1, static_cast<int>(p[static_cast<size_t>(best)] * kBins));
      confidence[bin] += p[static_cast<size_t>(best)];
      right[bin] += std::max_element(target, target + m) - target == best;
      count[bin] += 1;
      all += 1;
    }
  }
  double error = 0;
  for (int bin = 0; bin < kBins; ++bin) error += std::abs(confidence[bin] - right[bin]);
  return all > 0 ? error / all : 0;
}

MarginChoice measure_margin(const std::vector<TextDecisions>& texts, int num_domains, double temperature, double margin,
                            double hysteresis) {
  const size_t m = static_cast<size_t>(num_domains);
  double tokens = 0, covered = 0, active_domains_sum = 0, chunks = 0;
  for (const TextDecisions& text : texts) {
    std::vector<uint8_t> active;
    for (size_t c = 0; c < text.tokens_C.size(); ++c) {
      const std::vector<float> p = softmax(&text.logits_CM[c * m], m, temperature);
      active = active_domains(p, active, {}, margin, hysteresis);
      for (size_t d = 0; d < m; ++d) {
        active_domains_sum += active[d];
        if (active[d]) covered += static_cast<double>(text.targets_CM[c * m + d]) * text.tokens_C[c];
      }
      tokens += text.tokens_C[c];
      chunks += 1;
    }
  }
  return {margin, tokens > 0 ? covered / tokens : 0, chunks > 0 ? active_domains_sum / chunks : 0};
}

MarginChoice choose_margin(const std::vector<TextDecisions>& texts, int num_domains, double temperature,
                           double hysteresis, double missed) {
  const double most = measure_margin(texts, num_domains, temperature, 1.0, hysteresis).covered;
  MarginChoice choice;
  for (int step = 1; step <= 20; ++step) {
    choice = measure_margin(texts, num_domains, temperature, 0.05 * step, hysteresis);
    if (choice.covered >= most - missed) break;
  }
  return choice;
}

}  // namespace tessera
