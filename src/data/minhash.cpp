#include "data/minhash.h"

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"

namespace tessera {
namespace {

// 16 bands of 8 bins: texts 0.8 alike share a band with probability 1 - (1 - 0.8^8)^16 = 0.95, those 0.5 alike with
// 0.06.
constexpr int kBands = 16, kBandSize = kSignatureSize / kBands;
constexpr uint32_t kEmpty = UINT32_MAX;

}  // namespace

Signature minhash(const std::vector<uint64_t>& shingles) {
  TESSERA_CHECK(!shingles.empty(), "a text without shingles");
  Signature signature;
  signature.fill(kEmpty);
  for (const uint64_t shingle : shingles) {
    const uint64_t hash = mix64(shingle);
    uint32_t& bin = signature[hash >> 57];
    bin = std::min(bin, static_cast<uint32_t>(hash & 0xfffffffe));  // never kEmpty
  }
  const Signature filled = signature;
  for (size_t i = 0; i < signature.size(); ++i) {
    // The bin asked next depends on nothing but (i, attempt): two texts with the same empty bins ask the same ones.
    for (uint64_t attempt = 0; signature[i] == kEmpty; ++attempt) signature[i] = filled[mix64(i << 32 | attempt) >> 57];
  }
  return signature;
}

double estimated_jaccard(const Signature& a, const Signature& b) {
  int equal = 0;
  for (size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i];
  return static_cast<double>(equal) / kSignatureSize;
}

int64_t NearDuplicates::find_or_add(const Signature& signature) {
  std::array<uint64_t, kBands> keys;
  int64_t found = -1;
  for (int band = 0; band < kBands; ++band) {
    uint64_t& key = keys[static_cast<size_t>(band)];
    key = static_cast<uint64_t>(band);
    for (int i = 0; i < kBandSize; ++i) key = mix64(key ^ signature[static_cast<size_t>(band * kBandSize + i)]);
    const auto same = bands_.find(key);
    if (same == bands_.end()) continue;
    for (const uint32_t other : same->second) {
      if (found >= 0 && other >= found) break;  // the first of all is reported; the lists ascend
      if (estimated_jaccard(signature, added_[other]) >= threshold_) found = other;
    }
  }
  if (found >= 0) return found;
  for (const uint64_t key : keys) bands_[key].push_back(static_cast<uint32_t>(added_.size()));
  added_.push_back(signature);
  return -1;
}

}  // namespace tessera
