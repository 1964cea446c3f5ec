// A small architecture and random packed rows for the tests of this folder.
#pragma once
#include "base/rng.h"
#include "train/model.h"

namespace tessera {

inline Architecture tiny_architecture() {
  Architecture a;
  a.trunk.vocab_size = 50;
  a.trunk.width = 16;
  a.trunk.num_layers = 2;
  a.trunk.num_heads = 4;
  a.trunk.num_kv_heads = 2;
  a.trunk.context_length = 96;
  a.hierarchy.domains = {{"general", 4, true, {}}, {"code", 2, false, {}}, {"mathematics", 2, false, {}}};
  a.hierarchy.num_banks = 3;
  a.hierarchy.base_width = 5;
  a.hierarchy.unique_width = 6;
  a.domain_router.kind = "encoder";
  a.domain_router.width = a.component_router.width = 8;
  a.domain_router.num_heads = a.component_router.num_heads = 2;
  return a;
}

// Rows whose pieces begin at the given places; token 0 is the start token.
inline PackedRows random_rows(const Architecture& a, int64_t num_rows, int64_t num_tokens,
                              const std::vector<int64_t>& piece_starts, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> tokens, starts, targets, labels;
  for (int64_t r = 0; r < num_rows; ++r) {
    int64_t start = 0;
    for (int64_t t = 0; t < num_tokens; ++t) {
      for (int64_t s : piece_starts) start = s == t ? t : start;
      tokens.push_back(start == t ? 0
                                  : 1 + static_cast<int32_t>(rng.below(static_cast<uint64_t>(a.trunk.vocab_size) - 1)));
      starts.push_back(static_cast<int32_t>(start));
      targets.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(a.trunk.vocab_size))));
      labels.push_back(static_cast<int32_t>((t / 20 + r) % 2));
    }
  }
  return pack_rows(num_rows, num_tokens, tokens, starts, targets, labels, a.domain_router.chunk_tokens, at::kCPU);
}

}  // namespace tessera
