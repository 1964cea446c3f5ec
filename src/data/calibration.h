// Level 1's probabilities made true: temperature and floor, the calibration error, and the margin under which a second
// domain becomes active. M domains; a chunk's target is the share of each domain among its tokens.
#pragma once
#include <cstdint>
#include <vector>

#include "core/hierarchy.h"

namespace tessera {

// Decisions of one text, chunk by chunk, in order.
struct TextDecisions {
  std::vector<float> logits_CM;   // level 1's output before each decided chunk
  std::vector<float> targets_CM;  // what the chunk turned out to be
  std::vector<int32_t> tokens_C;  // its labelled tokens
};

// Mean cross-entropy of the targets, in nats a chunk.
double cross_entropy(const std::vector<TextDecisions>& texts, int num_domains, const DomainRouter& router);

// The temperature in [0.05, 20] that minimises the mean cross-entropy of the targets (Guo et al. 2017), with the
// router's floor.
double fit_temperature(const std::vector<TextDecisions>& texts, int num_domains, DomainRouter router);

// Sets temperature (0.4 to 4) and floor (under half of one in the number of domains) to those with the least
// calibration error.
void calibrate(const std::vector<TextDecisions>& texts, int num_domains, DomainRouter& router);

// Expected calibration error: chunks in 15 equal bins of confidence, the mean distance between a bin's confidence and
// its share of right choices (the most probable domain holds most of the chunk).
double calibration_error(const std::vector<TextDecisions>& texts, int num_domains, const DomainRouter& router);

struct MarginChoice {
  double margin = 0.5;
  double covered = 0;      // share of tokens whose domain is active
  double mean_active = 0;  // active domains a chunk
};
// The smallest margin (in steps of 0.05) that covers all but `missed` of what two always active domains would cover.
MarginChoice choose_margin(const std::vector<TextDecisions>& texts, int num_domains, DomainRouter router,
                           double missed = 0.002);
MarginChoice measure_margin(const std::vector<TextDecisions>& texts, int num_domains, const DomainRouter& router);

}  // namespace tessera
