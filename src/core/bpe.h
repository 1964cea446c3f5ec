// Byte-pair encoding of one piece: neighbouring tokens are merged, the pair of the lowest rank first, the leftmost of
// equals, until no pair is left that a merge names (Sennrich et al. 2016, algorithm 1).
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tessera {

struct Merge {
  int32_t left, right, merged;  // token ids
};

class Bpe {
 public:
  // merges by rank, no pair twice. A byte whose token is -1 is dropped.
  Bpe(const std::array<int32_t, 256>& byte_tokens, const std::vector<Merge>& merges);

  // Appends the tokens of the piece. O(n log n) for long ones, a scan for the short ones that texts are made of.
  void encode(std::string_view piece, std::vector<int32_t>& tokens) const;

 private:
  static constexpr int32_t kNoRank = INT32_MAX;
  struct Slot {
    uint64_t pair = UINT64_MAX;
    int32_t rank = kNoRank;
    int32_t merged = -1;
  };

  size_t slot_of(int32_t left, int32_t right) const;  // its slot, or the free one where it would go
  void encode_short(std::string_view piece, std::vector<int32_t>& tokens) const;
  void encode_long(std::string_view piece, std::vector<int32_t>& tokens) const;

  std::array<int32_t, 256> byte_tokens_;
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  int shift_;                // 64 - log2(slots_.size())
};

}  // namespace tessera
