// Words and n-grams as hashes: what the rules of repetition, near-duplicates and overlap compare.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace tessera {

// Runs of letters, digits, '_' and bytes above ASCII, in lower case: spacing and punctuation don't count.
std::vector<uint64_t> word_hashes(std::string_view text);

// The hash of each run of n words, in order; of all words when there are fewer than n (but at least one).
std::vector<uint64_t> gram_hashes(const std::vector<uint64_t>& words, int n);

// A set of hashes with open addressing; 0 stands for an empty slot, so the hash 0 counts as 1.
class HashSet {
 public:
  explicit HashSet(size_t expected = 16);
  bool insert(uint64_t hash);  // false when it was there
  bool contains(uint64_t hash) const { return slots_[find(hash | (hash == 0))] != 0; }
  size_t size() const { return size_; }

 private:
  size_t find(uint64_t hash) const {
    size_t at = hash & (slots_.size() - 1);
    while (slots_[at] != 0 && slots_[at] != hash) at = (at + 1) & (slots_.size() - 1);
    return at;
  }
  std::vector<uint64_t> slots_;
  size_t size_ = 0;
};

}  // namespace tessera
