// kernels/attention.h's attention of bf16 where products are of bf16 (train/products.h): a block of queries at a time,
// scores and their gradient in f32, probabilities rounded before they meet the values.
#pragma once
#include "kernels/attention.h"
#include "train/torch.h"

namespace tessera {

void attention_forward_bf16(const AttentionRow& row, int64_t head, const at::BFloat16* query, const at::BFloat16* key,
                            const at::BFloat16* value, float* out, float* log_sum_exp);

void attention_backward_bf16(const AttentionRow& row, int64_t kv_head, const at::BFloat16* query,
                             const at::BFloat16* key, const at::BFloat16* value, const float* out,
                             const float* log_sum_exp, const at::BFloat16* grad_out, float* grad_query, float* grad_key,
                             float* grad_value);

}  // namespace tessera
