// Which matrices of a model are quantised.
#pragma once
#include <algorithm>

#include "core/tensor_names.h"

namespace tessera {

// Bits of a tensor in a model quantised to `bits`; 0: it stays as it is. Routers stay: they are small, and the choices
// are then the same. Embedding and head keep 8 bits: as a head it decides the next token by itself.
inline int quantised_bits(const TensorSpec& spec, int bits) {
  if (spec.shape.size() != 2 || spec.part == Part::kDomainRouter || spec.part == Part::kComponentRouter) return 0;
  return spec.part == Part::kEmbedding || spec.part == Part::kHead ? std::max(bits, 8) : bits;
}

}  // namespace tessera
