// The yardstick: an interpolated modified Kneser-Ney trigram over tokens (Chen and Goodman 1999, "An empirical study of
// smoothing techniques for language modeling", section 3 and equation 26), counted from the very tokens that a run saw.
//
//   p3(w|u,v) = (c(uvw) - D3(c(uvw))) / c(uv.) + g3(uv) p2(w|v)        D(0) = 0, D(1), D(2), D(3 and more) by level
//   p2(w|v)   = (a(vw)  - D2(a(vw)))  / a(v.)  + g2(v)  p1(w)          a(vw) = number of different u with c(uvw) > 0
//   p1(w)     = (a(w)   - D1(a(w)))   / a(.)   + g1 / V                a(w)  = number of different v with a(vw) > 0
//
// g gives each level's discounts to the next, so that every distribution sums to 1. Nothing comes before a bos, so
// a(bos w) is the plain count (as in KenLM); the first token of a piece is given by p2(w|bos).
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/scorer.h"
#include "data/loader.h"

namespace tessera {

// Counts of what was seen: 8 bytes a token until a few million are pending, then 16 bytes a different trigram.
class TrigramCounts {
 public:
  // At most 2^21 tokens in the vocabulary.
  TrigramCounts(int vocab_size, int32_t bos);
  // A piece begins with bos; each token after it is counted with the two before it. Throws BugError for other pieces
  // and for tokens outside the vocabulary.
  void add(std::span<const int32_t> piece);
  // Every target of the batch, with contexts that stay within its piece.
  void add(const Batch& batch);
  int64_t num_tokens() const { return num_tokens_; }  // counted, ends of texts (targets that are bos) included

 private:
  friend class Trigram;
  struct Entry {
    uint64_t key;  // u, v, w in 21 bits each
    uint32_t count;
  };
  void count(int32_t before_last, int32_t last, int32_t next);
  void merge_pending();

  int vocab_size_;
  int32_t bos_;
  int64_t num_tokens_ = 0;
  std::vector<uint32_t> first_V_;  // of the first token of a piece
  std::vector<uint64_t> pending_;  // keys, unsorted
  std::vector<Entry> counted_;     // sorted by key, each once
};

class Trigram : public Scorer {
 public:
  // `context_length` is that of the model it is compared with: evaluation then cuts the same windows for both. Throws
  // BugError when nothing was counted.
  Trigram(TrigramCounts counts, int context_length);
  int vocab_size() const override { return vocab_size_; }
  int context_length() const override { return context_length_; }
  // Routes stay empty; labels and replay are ignored. A token outside the vocabulary throws BugError.
  std::vector<ScoredText> score(std::span<const std::vector<int32_t>> texts, std::span<const int> domain_labels = {},
                                std::span<const Route> replay = {}) override;
  // p(next | before_last, last), above 0; `before_last` is ignored when `last` is bos.
  double probability(int32_t before_last, int32_t last, int32_t next) const;

 private:
  using Discounts = std::array<double, 4>;  // by min(count, 3)
  // From the numbers of n-grams with counts 1 to 4.
  static Discounts discounts(const std::array<int64_t, 5>& num_with_count);
  double bigram(int32_t last, int32_t next) const;

  int vocab_size_, context_length_;
  int32_t bos_;
  Discounts discounts2_, discounts3_;
  std::vector<double> unigram_V_;  // p1
  // A trie in arrays: row v holds its followers w in order; row b (a bigram's index) those of that bigram.
  std::vector<int64_t> row2_;              // [V+1]
  std::vector<int32_t> next2_;             // [bigrams]
  std::vector<uint32_t> count2_;           // a(vw)
  std::vector<double> total2_, backoff2_;  // [V] a(v.), g2(v); g2 is 1 for a v never seen
  std::vector<int64_t> row3_;              // [bigrams+1]
  std::vector<int32_t> next3_;             // [trigrams]
  std::vector<uint32_t> count3_;           // c(uvw)
  std::vector<float> total3_, backoff3_;   // [bigrams]
};

}  // namespace tessera
