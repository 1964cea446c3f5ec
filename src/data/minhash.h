// Near-duplicates: MinHash signatures (Broder 1997) of word shingles, found by locality-sensitive hashing of bands.
// One hash a shingle fills all bins (one-permutation hashing: Li, Owen, Zhang 2012; empty bins borrow from others as in
// Shrivastava 2017): 128 times less work than 128 permutations.
#pragma once
#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace tessera {

constexpr int kSignatureSize = 128;
using Signature = std::array<uint32_t, kSignatureSize>;

// `shingles` must not be empty.
Signature minhash(const std::vector<uint64_t>& shingles);

// The share of equal bins: an estimate of |A n B| / |A u B| with a standard error of at most 0.045.
double estimated_jaccard(const Signature& a, const Signature& b);

class NearDuplicates {
 public:
  explicit NearDuplicates(double threshold = 0.8) : threshold_(threshold) {}
  // The index (in order of adding) of an earlier text at least `threshold` alike, or -1: then this one is added.
  int64_t find_or_add(const Signature& signature);

 private:
  double threshold_;
  std::vector<Signature> added_;
  std::unordered_map<uint64_t, std::vector<uint32_t>> bands_;  // hash of (band, its bins) -> texts that have it
};

}  // namespace tessera
