// Compiled once for each instruction set (foreach_target) and chosen at run time by Highway.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cpp"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/rest-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kTileQueries = 6;    // rows of a register tile: 6 x 2 vectors of sums leave room for the operands
constexpr int64_t kBlockQueries = 48;  // queries whose probabilities are kept at a time when going back
constexpr int64_t kPadding = 32;       // keys are padded to this, so that no tile of scores has a tail

// Row i, column p of an operand whose elements are broadcast: either order in memory.
struct Broadcast {
  const float* data;
  int64_t row_stride, column_stride;
};

// c[kRows, kVectors vectors] = scale a b, or += when kAdd; a [kRows, k] is broadcast, b [k, n] row-major. `at`: whole
// vectors, or (kVectors 1) a part of one.
template <int kRows, int kVectors, bool kAdd, class Access>
HWY_INLINE void tile(Access at, Broadcast a, const float* b, int64_t b_stride, int64_t k, float scale, float* c,
                     int64_t c_stride) {
  const auto d = at.d;
  using V = decltype(hn::Zero(d));
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V sums[kRows][kVectors];
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kVectors; ++j) sums[i][j] = hn::Zero(d);
  for (int64_t p = 0; p < k; ++p) {
    V right[kVectors];
    for (int j = 0; j < kVectors; ++j) right[j] = at.load(b + p * b_stride + j * lanes);
    for (int i = 0; i < kRows; ++i) {
      const V left = hn::Set(d, a.data[i * a.row_stride + p * a.column_stride]);
      for (int j = 0; j < kVectors; ++j) sums[i][j] = hn::MulAdd(left, right[j], sums[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) {
      float* to = c + i * c_stride + j * lanes;
      const V value = hn::Mul(sums[i][j], hn::Set(d, scale));
      at.store(kAdd ? hn::Add(value, at.load(to)) : value, to);
    }
  }
}

template <int kRows, bool kAdd>
HWY_INLINE void row_of_tiles(int64_t n, Broadcast a, const float* b, int64_t b_stride, int64_t k, float scale, float* c,
                             int64_t c_stride) {
  const hn::ScalableTag<float> d;
  const Whole<decltype(d)> whole{d};
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t j = 0;
  for (; j + 2 * lanes <= n; j += 2 * lanes) tile<kRows, 2, kAdd>(whole, a, b + j, b_stride, k, scale, c + j, c_stride);
  if (j + lanes <= n) {
    tile<kRows, 1, kAdd>(whole, a, b + j, b_stride, k, scale, c + j, c_stride);
    j += lanes;
  }
  if (j < n) tile<kRows, 1, kAdd>(first_of(d, n - j), a, b + j, b_stride, k, scale, c + j, c_stride);
}

// c[m, n] = scale a b or += : products too thin for a library, which would pack operands that are used once.
template <bool kAdd>
void thin_product(int64_t m, int64_t n, int64_t k, Broadcast a, const float* b, int64_t b_stride, float scale, float* c,
                  int64_t c_stride) {
  int64_t i = 0;
  auto rows_from = [&](int64_t row) { return Broadcast{a.data + row * a.row_stride, a.row_stride, a.column_stride}; };
  for (; i + kTileQueries <= m; i += kTileQueries)
    row_of_tiles<kTileQueries, kAdd>(n, rows_from(i), b, b_stride, k, scale, c + i * c_stride, c_stride);
  for (; i + 2 <= m; i += 2) row_of_tiles<2, kAdd>(n, rows_from(i), b, b_stride, k, scale, c + i * c_stride, c_stride);
  if (i < m) row_of_tiles<1, kAdd>(n, rows_from(i), b, b_stride, k, scale, c + i * c_stride, c_stride);
}

// Keys [begin, end) that any of the queries [first, first + count) sees, widened to whole paddings.
HWY_INLINE std::pair<int64_t, int64_t> keys_of(const AttentionRow& row, int64_t first, int64_t count) {
  const int64_t begin = *std::min_element(row.begin_T + first, row.begin_T + first + count);
  const int64_t end = *std::max_element(row.end_T + first, row.end_T + first + count);
  return {begin / kPadding * kPadding, (end + kPadding - 1) / kPadding * kPadding};
}

HWY_INLINE int64_t padded(int64_t tokens) { return (tokens + kPadding - 1) / kPadding * kPadding; }

// [h, padded T] from [T, h] with zeros in the padding.
void transpose(const float* from, int64_t stride, int64_t tokens, int64_t head_dim, std::vector<float>& to) {
  to.assign(static_cast<size_t>(head_dim * padded(tokens)), 0.0f);
  constexpr int64_t kLine = 16;  // tokens at a time, so that a line of the cache is written in one go
  for (int64_t first = 0; first < tokens; first += kLine) {
    const int64_t end = std::min(first + kLine, tokens);
    for (int64_t i = 0; i < head_dim; ++i)
      for (int64_t t = first; t < end; ++t) to[static_cast<size_t>(i * padded(tokens) + t)] = from[t * stride + i];
  }
}

void attention_forward(const AttentionRow& row, int64_t head, const float* query, const float* key, const float* value,
                       float* out, float* log_sum_exp) {
  const int64_t h = row.head_dim, stride = row.num_heads * h, kv_stride = row.num_kv_heads * h;
  const int64_t kv_head = head / (row.num_heads / row.num_kv_heads), keys_stride = padded(row.num_tokens);
  query += head * h, out += head * h, key += kv_head * h, value += kv_head * h, log_sum_exp += head * row.num_tokens;
  const float scale = 1 / std::sqrt(static_cast<float>(h));
  thread_local std::vector<float> key_hT, probs;
  transpose(key, kv_stride, row.num_tokens, h, key_hT);
  probs.resize(static_cast<size_t>(kTileQueries * keys_stride));
  for (int64_t first = 0; first < row.num_tokens; first += kTileQueries) {
    const int64_t count = std::min(kTileQueries, row.num_tokens - first);
    const auto [begin, padded_end] = keys_of(row, first, count);
    const int64_t keys = padded_end - begin;
    thin_product<false>(count, keys, h, {query + first * stride, stride, 1}, key_hT.data() + begin, keys_stride, scale,
                        probs.data(), keys);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = first + i, from = row.begin_T[t] - begin, to = row.end_T[t] - begin;
      float* scores = probs.data() + i * keys;
      std::fill(scores, scores + from, 0.0f);
      log_sum_exp[t] = softmax(scores + from, to - from);
      std::fill(scores + to, scores + keys, 0.0f);
    }
    const int64_t real_keys = std::min(padded_end, row.num_tokens) - begin;
    thin_product<false>(count, h, real_keys, {probs.data(), keys, 1}, value + begin * kv_stride, kv_stride, 1,
                        out + first * stride, stride);
  }
}

void attention_backward(const AttentionRow& row, int64_t kv_head, const float* query, const float* key,
                        const float* value, const float* out, const float* log_sum_exp, const float* grad_out,
                        float* grad_query, float* grad_key, float* grad_value) {
  const int64_t h = row.head_dim, stride = row.num_heads * h, kv_stride = row.num_kv_heads * h;
  const int64_t group = row.num_heads / row.num_kv_heads, keys_stride = padded(row.num_tokens);
  const float scale = 1 / std::sqrt(static_cast<float>(h));
  key += kv_head * h, value += kv_head * h, grad_key += kv_head * h, grad_value += kv_head * h;
  for (int64_t t = 0; t < row.num_tokens; ++t) {
    std::fill_n(grad_key + t * kv_stride, h, 0.0f);
    std::fill_n(grad_value + t * kv_stride, h, 0.0f);
  }
  thread_local std::vector<float> key_hT, value_hT, probs, grad_probs;
  transpose(key, kv_stride, row.num_tokens, h, key_hT);
  transpose(value, kv_stride, row.num_tokens, h, value_hT);
  probs.resize(static_cast<size_t>(kBlockQueries * keys_stride));
  grad_probs.resize(probs.size());
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const float *q = query + head * h, *o = out + head * h, *grad = grad_out + head * h;
    for (int64_t first = 0; first < row.num_tokens; first += kBlockQueries) {
      const int64_t count = std::min(kBlockQueries, row.num_tokens - first);
      const auto [begin, padded_end] = keys_of(row, first, count);
      const int64_t keys = padded_end - begin, real_keys = std::min(padded_end, row.num_tokens) - begin;
      for (int64_t i = 0; i < count; i += kTileQueries) {  // a tile of queries sees fewer keys than the block
        const int64_t tile_count = std::min(kTileQueries, count - i);
        const auto [tile_begin, tile_end] = keys_of(row, first + i, tile_count);
        const int64_t at = tile_begin - begin, tile_keys = tile_end - tile_begin;
        float *p = probs.data() + i * keys, *grad_p = grad_probs.data() + i * keys;
        thin_product<false>(tile_count, tile_keys, h, {q + (first + i) * stride, stride, 1}, key_hT.data() + tile_begin,
                            keys_stride, scale, p + at, keys);
        thin_product<false>(tile_count, tile_keys, h, {grad + (first + i) * stride, stride, 1},
                            value_hT.data() + tile_begin, keys_stride, 1, grad_p + at, keys);
        for (int64_t j = 0; j < tile_count; ++j, p += keys, grad_p += keys) {
          const int64_t t = first + i + j, from = row.begin_T[t] - begin, to = row.end_T[t] - begin;
          std::fill(p, p + from, 0.0f);
          exp_minus(p + from, to - from, log_sum_exp[head * row.num_tokens + t]);
          std::fill(p + to, p + keys, 0.0f);
          // grad_p becomes the gradient of the scores; p stays for the values.
          const float shift = dot(grad + t * stride, o + t * stride, h);
          std::fill(grad_p, grad_p + from, 0.0f);
          softmax_gradient(p + from, grad_p + from, to - from, shift, scale);
          std::fill(grad_p + to, grad_p + keys, 0.0f);
        }
        thin_product<false>(tile_count, h, std::min(tile_end, row.num_tokens) - tile_begin,
                            {grad_probs.data() + i * keys + at, keys, 1}, key + tile_begin * kv_stride, kv_stride, 1,
                            grad_query + head * h + (first + i) * stride, stride);
      }
      thin_product<true>(real_keys, h, count, {probs.data(), 1, keys}, grad + first * stride, stride, 1,
                         grad_value + begin * kv_stride, kv_stride);
      thin_product<true>(real_keys, h, count, {grad_probs.data(), 1, keys}, q + first * stride, stride, 1,
                         grad_key + begin * kv_stride, kv_stride);
    }
  }
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {

HWY_EXPORT(attention_forward);
HWY_EXPORT(attention_backward);

void attention_forward(const AttentionRow& row, int64_t head, const float* query, const float* key, const float* value,
                       float* out, float* log_sum_exp) {
  HWY_DYNAMIC_DISPATCH(attention_forward)(row, head, query, key, value, out, log_sum_exp);
}

void attention_backward(const AttentionRow& row, int64_t kv_head, const float* query, const float* key,
                        const float* value, const float* out, const float* log_sum_exp, const float* grad_out,
                        float* grad_query, float* grad_key, float* grad_value) {
  HWY_DYNAMIC_DISPATCH(attention_backward)
  (row, kv_head, query, key, value, out, log_sum_exp, grad_out, grad_query, grad_key, grad_value);
}

}  // namespace tessera
#endif
