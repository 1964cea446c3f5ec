#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/elementwise.h"
#include "kernels/gemm.h"

namespace tessera {
namespace {

constexpr int64_t kBlockQueries = 64;

// Queries [first, first + count) of one head and the keys [begin, end) that any of them sees.
struct Block {
  int64_t first, count, begin, end;
  int64_t num_keys() const { return end - begin; }
};

template <class Body>
void for_each_block(const AttentionRow& row, const Body& body) {
  for (int64_t first = 0; first < row.num_tokens; first += kBlockQueries) {
    const int64_t count = std::min(kBlockQueries, row.num_tokens - first);
    const int64_t begin = *std::min_element(row.begin_T + first, row.begin_T + first + count);
    const int64_t end = *std::max_element(row.end_T + first, row.end_T + first + count);
    body(Block{first, count, begin, end});
  }
}

// Scores [count, num_keys] of a block; `finish` turns the visible part of a query's row into probabilities, the rest is
// set to zero.
template <class Finish>
void probabilities(const AttentionRow& row, const Block& block, const float* query, int64_t query_stride,
                   const float* key, int64_t key_stride, float* probs, const Finish& finish) {
  const int64_t keys = block.num_keys();
  gemm(block.count, keys, row.head_dim, {query + block.first * query_stride, query_stride},
       {key + block.begin * key_stride, key_stride, true}, probs, keys, 0,
       1 / std::sqrt(static_cast<float>(row.head_dim)));
  for (int64_t i = 0; i < block.count; ++i) {
    const int64_t t = block.first + i, begin = row.begin_T[t] - block.begin, end = row.end_T[t] - block.begin;
    float* scores = probs + i * keys;
    std::fill(scores, scores + begin, 0.0f);
    finish(t, scores + begin, end - begin);
    std::fill(scores + end, scores + keys, 0.0f);
  }
}

}  // namespace

void attention_forward(const AttentionRow& row, int64_t head, const float* query, const float* key, const float* value,
                       float* out, float* log_sum_exp) {
  const int64_t h = row.head_dim, stride = row.num_heads * h, kv_stride = row.num_kv_heads * h;
  const int64_t kv_head = head / (row.num_heads / row.num_kv_heads);
  query += head * h, out += head * h, key += kv_head * h, value += kv_head * h, log_sum_exp += head * row.num_tokens;
  std::vector<float> probs;
  for_each_block(row, [&](const Block& block) {
    probs.resize(static_cast<size_t>(block.count * block.num_keys()));
    probabilities(row, block, query, stride, key, kv_stride, probs.data(),
                  [&](int64_t t, float* scores, int64_t n) { log_sum_exp[t] = softmax(scores, n); });
    gemm(block.count, h, block.num_keys(), {probs.data(), block.num_keys()},
         {value + block.begin * kv_stride, kv_stride}, out + block.first * stride, stride);
  });
}

void attention_backward(const AttentionRow& row, int64_t kv_head, const float* query, const float* key,
                        const float* value, const float* out, const float* log_sum_exp, const float* grad_out,
                        float* grad_query, float* grad_key, float* grad_value) {
  const int64_t h = row.head_dim, stride = row.num_heads * h, kv_stride = row.num_kv_heads * h;
  const int64_t group = row.num_heads / row.num_kv_heads;
  const float scale = 1 / std::sqrt(static_cast<float>(h));
  key += kv_head * h, value += kv_head * h, grad_key += kv_head * h, grad_value += kv_head * h;
  for (int64_t t = 0; t < row.num_tokens; ++t) {
    std::fill_n(grad_key + t * kv_stride, h, 0.0f);
    std::fill_n(grad_value + t * kv_stride, h, 0.0f);
  }
  std::vector<float> probs, grad_probs;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    const float *q = query + head * h, *o = out + head * h, *grad = grad_out + head * h;
    for_each_block(row, [&](const Block& block) {
      const int64_t keys = block.num_keys();
      probs.resize(static_cast<size_t>(block.count * keys));
      grad_probs.resize(probs.size());
      probabilities(row, block, q, stride, key, kv_stride, probs.data(), [&](int64_t t, float* scores, int64_t n) {
        exp_minus(scores, n, log_sum_exp[head * row.num_tokens + t]);
      });
      const Matrix block_grad{grad + block.first * stride, stride};
      gemm(block.count, keys, h, block_grad, {value + block.begin * kv_stride, kv_stride, true}, grad_probs.data(),
           keys);
      gemm(keys, h, block.count, {probs.data(), keys, true}, block_grad, grad_value + block.begin * kv_stride,
           kv_stride, 1);
      for (int64_t i = 0; i < block.count; ++i) {
        const int64_t t = block.first + i;
        softmax_backward(probs.data() + i * keys, grad_probs.data() + i * keys, keys,
                         dot(grad + t * stride, o + t * stride, h), scale);
      }
      gemm(block.count, h, keys, {probs.data(), keys}, {key + block.begin * kv_stride, kv_stride},
           grad_query + head * h + block.first * stride, stride);
      gemm(keys, h, block.count, {probs.data(), keys, true}, {q + block.first * stride, stride},
           grad_key + block.begin * kv_stride, kv_stride, 1);
    });
  }
}

}  // namespace tessera
