// The sizes of a spliced document: 2 to 4 pieces of 32 to 400 tokens.
#pragma once
#include <cstdint>

#include "base/rng.h"

namespace tessera {

inline int64_t splice_pieces(Rng& rng) { return 2 + static_cast<int64_t>(rng.below(3)); }
inline int64_t splice_piece_tokens(Rng& rng) { return 32 + static_cast<int64_t>(rng.below(369)); }

}  // namespace tessera
