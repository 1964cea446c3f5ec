// Which row of the table of bigrams a token adds to its embedding (Trunk::bigram_rows). Trainer and engine share it.
#pragma once
#include <cstdint>

namespace tessera {

constexpr uint64_t kBigramPrevious = 0x9E3779B97F4A7C15, kBigramToken = 0xC2B2AE3D27D4EB4F;  // odd, of random bits
constexpr int kBigramShift = 33;  // the upper 31 bits, the well mixed ones

// In [0, num_rows). `previous`: the token before in its document; 0 for the first.
inline int64_t bigram_row(int32_t previous, int32_t token, int64_t num_rows) {
  const uint64_t sum = static_cast<uint64_t>(previous) * kBigramPrevious + static_cast<uint64_t>(token) * kBigramToken;
  return static_cast<int64_t>(sum >> kBigramShift) % num_rows;
}

}  // namespace tessera
