#include "data/words.h"

#include <algorithm>
#include <bit>

#include "base/rng.h"

namespace tessera {
namespace {

// The lower-case form of a character of a word, 0 for one that separates words.
struct WordTable {
  unsigned char of[256];
  constexpr WordTable() : of() {
    for (int c = 0; c < 256; ++c) {
      const bool upper = c >= 'A' && c <= 'Z';
      const bool other = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c >= 0x80;
      of[c] = static_cast<unsigned char>(upper ? c + 32 : other ? c : 0);
    }
  }
};
constexpr WordTable kWordTable;

}  // namespace

std::vector<uint64_t> word_hashes(std::string_view text) {
  std::vector<uint64_t> words;
  words.reserve(text.size() / 6);
  constexpr uint64_t kStart = 0xcbf29ce484222325ull, kPrime = 0x100000001b3ull;  // FNV-1a, mixed once at the end
  uint64_t hash = kStart;
  for (const char c : text) {
    const unsigned char folded = kWordTable.of[static_cast<unsigned char>(c)];
    if (folded) {
      hash = (hash ^ folded) * kPrime;
    } else if (hash != kStart) {
      words.push_back(mix64(hash));
      hash = kStart;
    }
  }
  if (hash != kStart) words.push_back(mix64(hash));
  return words;
}

std::vector<uint64_t> gram_hashes(const std::vector<uint64_t>& words, int n) {
  std::vector<uint64_t> grams;
  if (words.empty()) return grams;
  const size_t width = std::min(words.size(), static_cast<size_t>(n));
  grams.reserve(words.size() - width + 1);
  // A polynomial over the words' hashes, rolled on by a word at a time (Karp and Rabin 1987).
  constexpr uint64_t kBase = 0x9e3779b97f4a7c15ull;
  uint64_t rolling = 0, leaving = 1;
  for (size_t i = 0; i < width; ++i) leaving *= kBase;
  for (size_t i = 0; i < words.size(); ++i) {
    rolling = rolling * kBase + words[i];
    if (i >= width) rolling -= leaving * words[i - width];
    if (i + 1 >= width) grams.push_back(mix64(rolling));
  }
  return grams;
}

HashSet::HashSet(size_t expected) : slots_(std::bit_ceil(2 * expected + 2)) {}

bool HashSet::insert(uint64_t hash) {
  if (2 * (size_ + 1) > slots_.size()) {
    std::vector<uint64_t> old(2 * slots_.size());
    old.swap(slots_);
    for (const uint64_t kept : old) {
      if (kept != 0) slots_[find(kept)] = kept;
    }
  }
  uint64_t& slot = slots_[find(hash | (hash == 0))];
  if (slot != 0) return false;
  slot = hash | (hash == 0);
  ++size_;
  return true;
}

}  // namespace tessera
