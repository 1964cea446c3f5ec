// Which matrices of a model are quantised, and what its config.json says of it.
#pragma once
#include <algorithm>

#include "base/block_layout.h"
#include "base/json.h"
#include "core/tensor_names.h"

namespace tessera {

// Bits of a tensor in a model quantised to `bits`; 0: it stays as it is. Routers stay, since they are small and narrow,
// but for level 2's heads in 8 and 4 bits: those on the trunk are as wide as it, and most of the routing time (narrow
// ones gain nothing and lose more: docs/LOG.md). Gates stay, as in llama.cpp's files. Embedding and head keep 8 bits:
// as a head it decides the next token by itself.
inline int quantised_bits(const TensorSpec& spec, int bits) {
  constexpr int64_t kWide = 128;
  if (spec.shape.size() != 2 || spec.part == Part::kDomainRouter) return 0;
  const bool is_wide_head = bits < 16 && spec.name.starts_with("component_router.heads.") && spec.shape[1] >= kWide;
  if (spec.part == Part::kComponentRouter && !is_wide_head) return 0;
  return spec.part == Part::kEmbedding || spec.part == Part::kHead ? std::max(bits, 8) : bits;
}

// The bits of a model in 8 or 4 bits, by its config.json; 0: it is not quantised (16 bits are a type of their own).
inline int bits_in(const Json& config) {
  return config.contains("quantised") ? config["quantised"].at("bits").get<int>() : 0;
}
inline void set_bits(Json& config, int bits) {
  if (bits == 8 || bits == 4) config["quantised"] = {{"bits", bits}, {"group", kBlockInputs}};
}

}  // namespace tessera
