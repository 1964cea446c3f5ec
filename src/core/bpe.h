// Byte-pair encoding of one piece, given as tokens of its bytes or characters: neighbouring tokens are merged, the pair
// of the lowest rank first, the leftmost of equals, until no pair is left that a merge names (Sennrich et al. 2016,
// algorithm 1).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

struct Merge {
  int32_t left, right, merged;  // token ids
};

class Bpe {
 public:
  explicit Bpe(const std::vector<Merge>& merges);  // by rank, no pair twice

  // Appends the tokens of the piece. O(n log n) for long ones, a scan for the short ones that texts are made of.
  void encode(std::span<const int32_t> piece, std::vector<int32_t>& tokens) const;

 private:
  static constexpr int32_t kNoRank = INT32_MAX;
  struct Slot {
    uint64_t pair = UINT64_MAX;
    int32_t rank = kNoRank;
    int32_t merged = -1;
  };

  size_t slot_of(int32_t left, int32_t right) const;  // its slot, or the free one where it would go
  void encode_short(std::span<const int32_t> piece, std::vector<int32_t>& tokens) const;
  void encode_long(std::span<const int32_t> piece, std::vector<int32_t>& tokens) const;

  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  int shift_;                // 64 - log2(slots_.size())
};

}  // namespace tessera
