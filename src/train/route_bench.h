// Time of progressive routing (level 1 by chunk, a narrow planner whose heads are those of active domains) against one
// monolithic router (one transformer that scores all components of all layers for every token), in turns.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "core/hierarchy.h"

namespace tessera {

struct RouteBenchOptions {
  int monolithic_width = 0;  // 0: the trunk's width
  int monolithic_layers = 1;
  std::vector<int> components = {32, 64, 128, 256};
  int repeats = 15;         // medians of so many turns
  int decode_tokens = 192;  // behind a text of 512
  std::function<void(const std::string&)> say = {};
};

// The same routers with N components a layer: half of them general, the rest evenly over the routed domains.
Architecture with_components(const Architecture& architecture, int num_components);
// One router for everything: no level 1, a planner of this size.
Architecture monolithic(const Architecture& architecture, int width, int num_layers);

// Milliseconds and their ratios: {"progressive_ms_prefill512", "monolithic_ms_prefill512", "ratio_prefill512",
// "ratio_prefill4096", "ratio_decode", "by_components": {"32": ratio of prefill 512}, "by_components_decode",
// "share_of_forward", ...}. The first keys are those of the config's own components. Fresh weights: what the routers
// decide does not matter to their time, but for the number of active domains (two, the most, with fresh weights).
Json bench_routers(const Architecture& architecture, const RouteBenchOptions& options);

}  // namespace tessera
