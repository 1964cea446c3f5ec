// The choice of a sparse layer: of each row the K candidates of the largest keys, and their weights.
#pragma once
#include <cstdint>
#include <span>

namespace tessera {

// Candidates in groups, one after the other; a row may choose from some groups only.
struct Candidates {
  const float* scores = nullptr;         // row r, candidate i: scores[r * row_stride + offsets[i]]
  int64_t row_stride = 0;                // 15 of them are less than 2^31
  std::span<const int32_t> offsets;      // [n]
  std::span<const float> bias;           // [n] added to the score for the choice alone
  std::span<const int64_t> group_sizes;  // [groups], n in all
  const float* added = nullptr;          // [rows, groups] added to the scores of a group; -infinity: not eligible
};

// ids [rows, k]: the k of the largest score + bias, the largest first, of equal ones the first. weights [rows, k]: the
// softmax of their scores; for k = 1 the softmax over all eligible. False where a key of an eligible candidate is not
// finite, or fewer than k are eligible. Results of a row depend on it alone.
bool top_k(const Candidates& candidates, int64_t rows, int64_t k, int32_t* ids, float* weights);

namespace ref {
bool top_k(const Candidates& candidates, int64_t rows, int64_t k, int32_t* ids, float* weights);
}  // namespace ref

}  // namespace tessera
