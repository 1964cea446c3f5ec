// One text that the engine runs: its tokens so far, their keys and values, and what both routers decided.
#pragma once
#include <cstdint>
#include <vector>

#include "core/route.h"
#include "engine/kv_cache.h"

namespace tessera::engine {

struct Sequence {
  std::vector<int32_t> tokens;  // those that were run
  KvCache trunk, encoder, planner;
  // Level 1's decisions of every chunk begun; with `records_route` also the choices of every token.
  Route route;
  std::vector<float> next_pi_M;  // decided at the end of the last whole chunk, for the one that follows; empty: none
  bool records_route = false;
  int label = -1;                 // routed domain for an oracle router
  const Route* replay = nullptr;  // forces components and weights; of at least as many tokens
  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
};

}  // namespace tessera::engine
