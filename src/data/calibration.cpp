#include "data/calibration.h"

#include <algorithm>
#include <cmath>

#include "core/route.h"

namespace tessera {
namespace {

std::vector<float> pi_of(const TextDecisions& text, size_t chunk, size_t m, const DomainRouter& router) {
  const auto begin = text.logits_CM.begin() + static_cast<int64_t>(chunk * m);
  std::vector<float> pi(begin, begin + static_cast<int64_t>(m));
  logits_to_pi(pi, router);
  return pi;
}

}  // namespace

double cross_entropy(const std::vector<TextDecisions>& texts, int num_domains, const DomainRouter& router) {
  const size_t m = static_cast<size_t>(num_domains);
  double nats = 0, chunks = 0;
  for (const TextDecisions& text : texts) {
    chunks += static_cast<double>(text.tokens_C.size());
    for (size_t c = 0; c < text.tokens_C.size(); ++c) {
      const std::vector<float> p = pi_of(text, c, m, router);
      for (size_t d = 0; d < m; ++d)
        nats -= text.targets_CM[c * m + d] * std::log(std::max(static_cast<double>(p[d]), 1e-30));
    }
  }
  return chunks > 0 ? nats / chunks : 0;
}

double fit_temperature(const std::vector<TextDecisions>& texts, int num_domains, DomainRouter router) {
  // Golden section over log temperature: with no floor the cross-entropy is convex in 1/T, so it has one minimum.
  const auto nats = [&](double log_temperature) {
    router.temperature = std::exp(log_temperature);
    return cross_entropy(texts, num_domains, router);
  };
  const double golden = (std::sqrt(5.0) - 1) / 2;
  double low = std::log(0.05), high = std::log(20.0);
  double a = high - golden * (high - low), b = low + golden * (high - low);
  double at_a = nats(a), at_b = nats(b);
  while (high - low > 1e-3) {
    if (at_a < at_b) {
      high = b, b = a, at_b = at_a;
      at_a = nats(a = high - golden * (high - low));
    } else {
      low = a, a = b, at_a = at_b;
      at_b = nats(b = low + golden * (high - low));
    }
  }
  return std::exp((low + high) / 2);
}

void calibrate(const std::vector<TextDecisions>& texts, int num_domains, DomainRouter& router) {
  double least = INFINITY;
  DomainRouter tried = router;
  for (tried.floor = 0; tried.floor * num_domains < 0.5; tried.floor += 0.005) {
    for (tried.temperature = 0.4; tried.temperature < 4; tried.temperature *= 1.05) {
      const double error = calibration_error(texts, num_domains, tried);
      if (error >= least) continue;
      least = error;
      router.temperature = tried.temperature;
      router.floor = tried.floor;
    }
  }
}

double calibration_error(const std::vector<TextDecisions>& texts, int num_domains, const DomainRouter& router) {
  constexpr int kBins = 15;
  const size_t m = static_cast<size_t>(num_domains);
  double confidence[kBins] = {}, right[kBins] = {}, count[kBins] = {}, all = 0;
  for (const TextDecisions& text : texts) {
    for (size_t c = 0; c < text.tokens_C.size(); ++c) {
      const std::vector<float> p = pi_of(text, c, m, router);
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

MarginChoice measure_margin(const std::vector<TextDecisions>& texts, int num_domains, const DomainRouter& router) {
  const size_t m = static_cast<size_t>(num_domains);
  double tokens = 0, covered = 0, active_domains_sum = 0, chunks = 0;
  for (const TextDecisions& text : texts) {
    std::vector<uint8_t> active;
    for (size_t c = 0; c < text.tokens_C.size(); ++c) {
      const std::vector<float> p = pi_of(text, c, m, router);
      active = active_domains(p, active, {}, router.margin, router.hysteresis);
      for (size_t d = 0; d < m; ++d) {
        active_domains_sum += active[d];
        if (active[d]) covered += static_cast<double>(text.targets_CM[c * m + d]) * text.tokens_C[c];
      }
      tokens += text.tokens_C[c];
      chunks += 1;
    }
  }
  return {router.margin, tokens > 0 ? covered / tokens : 0, chunks > 0 ? active_domains_sum / chunks : 0};
}

MarginChoice choose_margin(const std::vector<TextDecisions>& texts, int num_domains, DomainRouter router,
                           double missed) {
  router.margin = 1;
  const double most = measure_margin(texts, num_domains, router).covered;
  MarginChoice choice;
  for (int step = 1; step <= 20; ++step) {
    router.margin = 0.05 * step;
    choice = measure_margin(texts, num_domains, router);
    if (choice.covered >= most - missed) break;
  }
  return choice;
}

}  // namespace tessera
