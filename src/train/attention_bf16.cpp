#include "train/attention_bf16.h"

#include <algorithm>
#include <cmath>

#include "kernels/elementwise.h"
#include "train/products.h"
#include "train/tasks.h"

namespace tessera {
namespace {

constexpr int64_t kBlockQueries = 128;

// Queries [first, first + count), and the keys that any of them sees.
struct Block {
  int64_t first, count, begin, keys;
};

template <class Body>
void for_each_block(const AttentionRow& row, const Body& body) {
  for (int64_t first = 0; first < row.num_tokens; first += kBlockQueries) {
    const int64_t count = std::min(kBlockQueries, row.num_tokens - first);
    const int64_t begin = *std::min_element(row.begin_T + first, row.begin_T + first + count);
    const int64_t end = *std::max_element(row.end_T + first, row.end_T + first + count);
    body(Block{first, count, begin, end - begin});
  }
}

// Row i of a block's numbers [count, keys]: 0 for keys that its query doesn't see, then bf16.
void mask_and_round(const AttentionRow& row, const Block& b, int64_t i, float* numbers) {
  const int64_t t = b.first + i;
  float* at = numbers + i * b.keys;
  std::fill(at, at + row.begin_T[t] - b.begin, 0.0f);
  std::fill(at + row.end_T[t] - b.begin, at + b.keys, 0.0f);
  round_in_place(at, b.keys);
}

}  // namespace

void attention_forward_bf16(const AttentionRow& row, int64_t head, const at::BFloat16* query, const at::BFloat16* key,
                            const at::BFloat16* value, float* out, float* log_sum_exp) {
  const int64_t h = row.head_dim, stride = row.num_heads * h, kv_stride = row.num_kv_heads * h;
  const int64_t kv_head = head / (row.num_heads / row.num_kv_heads);
  query += head * h, out += head * h, key += kv_head * h, value += kv_head * h, log_sum_exp += head * row.num_tokens;
  const float scale = 1 / std::sqrt(static_cast<float>(h));
  float* scores = scratch(0, kBlockQueries * row.num_tokens);
  for_each_block(row, [&](const Block& b) {
    product(true, b.count, b.keys, h, {query + b.first * stride, stride}, {key + b.begin * kv_stride, kv_stride, true},
            scores, b.keys, 0, scale);
    for (int64_t i = 0; i < b.count; ++i) {
      const int64_t t = b.first + i;
      log_sum_exp[t] = softmax(scores + i * b.keys + row.begin_T[t] - b.begin, row.end_T[t] - row.begin_T[t]);
      mask_and_round(row, b, i, scores);
    }
    product(true, b.count, h, b.keys, rounded_in_place(scores, b.keys), {value + b.begin * kv_stride, kv_stride},
            out + b.first * stride, stride);
  });
}

void attention_backward_bf16(const AttentionRow& row, int64_t kv_head, const at::BFloat16* query,
                             const at::BFloat16* key, const at::BFloat16* value, const float* out,
                             const float* log_sum_exp, const at::BFloat16* grad_out, float* grad_query, float* grad_key,
                             float* grad_value) {
  const int64_t h = row.head_dim, stride = row.num_heads * h, kv_stride = row.num_kv_heads * h;
  const int64_t group = row.num_heads / row.num_kv_heads;
  const float scale = 1 / std::sqrt(static_cast<float>(h));
  key += kv_head * h, value += kv_head * h, grad_key += kv_head * h, grad_value += kv_head * h;
  for (int64_t t = 0; t < row.num_tokens; ++t) {
    std::fill_n(grad_key + t * kv_stride, h, 0.0f);
    std::fill_n(grad_value + t * kv_stride, h, 0.0f);
  }
  float *scores = scratch(0, kBlockQueries * row.num_tokens), *grad_scores = scratch(1, kBlockQueries * row.num_tokens);
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const at::BFloat16 *q = query + head * h, *grad = grad_out + head * h;
    const float* o = out + head * h;
    for_each_block(row, [&](const Block& b) {
      const Factor queries = {q + b.first * stride, stride}, grads = {grad + b.first * stride, stride},
                   keys = {key + b.begin * kv_stride, kv_stride}, values = {value + b.begin * kv_stride, kv_stride};
      product(true, b.count, b.keys, h, queries, keys.turned(), scores, b.keys, 0, scale);
      product(true, b.count, b.keys, h, grads, values.turned(), grad_scores, b.keys);
      for (int64_t i = 0; i < b.count; ++i) {
        const int64_t t = b.first + i, at = i * b.keys + row.begin_T[t] - b.begin, n = row.end_T[t] - row.begin_T[t];
        exp_minus(scores + at, n, log_sum_exp[head * row.num_tokens + t]);
        float shift = 0;  // <grad_out, out>, of the rounded gradient that grad_scores are made of
        for (int64_t j = 0; j < h; ++j) shift += static_cast<float>(grad[t * stride + j]) * o[t * stride + j];
        softmax_gradient(scores + at, grad_scores + at, n, shift, scale);
        mask_and_round(row, b, i, scores), mask_and_round(row, b, i, grad_scores);
      }
      const Factor probs = rounded_in_place(scores, b.keys), of_scores = rounded_in_place(grad_scores, b.keys);
      product(true, b.count, h, b.keys, of_scores, keys, grad_query + head * h + b.first * stride, stride);
      product(true, b.keys, h, b.count, probs.turned(), grads, grad_value + b.begin * kv_stride, kv_stride, 1);
      product(true, b.keys, h, b.count, of_scores.turned(), queries, grad_key + b.begin * kv_stride, kv_stride, 1);
    });
  }
}

}  // namespace tessera
