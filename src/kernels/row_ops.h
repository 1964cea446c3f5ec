// What the engine does to one row of activations between two products. Results depend on the row alone.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace tessera {

// y = x / sqrt(mean(x^2) + eps) * weight (Zhang, Sennrich 2019). [n]
void rms_norm_row(const float* x, const float* weight, int64_t n, float eps, float* y);

// y = silu(gate) * up (Shazeer 2020). [n]
void swiglu_row(const float* gate, const float* up, int64_t n, float* y);

// log of the sum of exp(x). [n], n > 0
float log_sum_exp_row(const float* x, int64_t n);

// Rotary positions, halves rotated (Su et al. 2021), in place: x [head_dim], cos and sin [head_dim / 2].
void rotate_row(float* x, const float* cos, const float* sin, int64_t head_dim);

// Keys and values of one layer and head, in pages of kPagePositions positions.
inline constexpr int kPagePositions = 64;
enum class KvType : uint8_t { kF32, kF16, kI8 };
// Values are padded to whole vectors.
inline constexpr int64_t padded_head(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
// Bytes of one page of one layer and head: keys [head_dim][64] (so that one vector holds one dimension of several
// positions), values [64][padded_head]; i8: then scales f32 [64] of the keys and [64] of the values.
int64_t kv_page_bytes(KvType type, int64_t head_dim);
void store_kv(KvType type, std::byte* page, int slot, const float* key, const float* value, int64_t head_dim);

// One query of attention over positions [first, end).
struct AttentionQuery {
  const float* query = nullptr;  // [head_dim], rotated
  float* out = nullptr;          // [head_dim]
  int64_t first = 0, end = 0;
};
// Softmax(q k / sqrt(head_dim)) v for queries that share a key/value head. pages[p] holds positions [64 p, 64 p + 64);
// those before the least `first` / 64 aren't read. Queries are taken eight (or four) at a time. scratch:
// attention_scratch(longest end, head_dim) floats.
void attend(KvType type, std::span<const std::byte* const> pages, int64_t head_dim,
            std::span<const AttentionQuery> rows, float* scratch);
inline constexpr int64_t attention_scratch(int64_t end, int64_t head_dim) {
  return 8 * ((end + kPagePositions - 1) / kPagePositions * kPagePositions + padded_head(head_dim));
}

namespace ref {
void rms_norm_row(const float* x, const float* weight, int64_t n, float eps, float* y);
void swiglu_row(const float* gate, const float* up, int64_t n, float* y);
float log_sum_exp_row(const float* x, int64_t n);
void attend(KvType type, std::span<const std::byte* const> pages, int64_t head_dim,
            std::span<const AttentionQuery> rows);
}  // namespace ref

}  // namespace tessera
