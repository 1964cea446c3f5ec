// Attention of one row (sequence) without its T x T matrix: a block of queries at a time against the keys that any of
// it sees, on library products. Every mask of the model is an interval of keys for each query, so masked keys outside a
// block's intervals cost nothing.
#pragma once
#include <cstdint>

namespace tessera {

// T tokens, H query heads over Hkv key/value heads, h head width. Query t sees keys [begin[t], end[t]), never none.
struct AttentionRow {
  int64_t num_tokens, num_heads, num_kv_heads, head_dim;
  const int32_t *begin_T, *end_T;
};

// out [T, H h] and log_sum_exp [H, T] of one head, softmax(query key^T / sqrt(h)) value. query [T, H h], key and value
// [T, Hkv h].
void attention_forward(const AttentionRow& row, int64_t head, const float* query, const float* key, const float* value,
                       float* out, float* log_sum_exp);

// Gradients of all query heads of one key/value head: writes their columns of grad_query, grad_key and grad_value.
// The probabilities are computed again (Dao et al. 2022, arXiv 2205.14135).
void attention_backward(const AttentionRow& row, int64_t kv_head, const float* query, const float* key,
                        const float* value, const float* out, const float* log_sum_exp, const float* grad_out,
                        float* grad_query, float* grad_key, float* grad_value);

}  // namespace tessera
