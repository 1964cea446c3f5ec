// The losses of training. S tokens, D width, V vocabulary.
#pragma once
#include "train/torch.h"

namespace tessera {

// Sum over the tokens with target >= 0 of -log softmax(hidden E^T)[target] (natural log). The logits exist for a block
// of tokens at a time only: the gradients are made on the way forward. hidden_SD [S, D], head_VD [V, D], targets_S
// int64.
at::Tensor linear_cross_entropy_sum(const at::Tensor& hidden_SD, const at::Tensor& head_VD,
                                    const at::Tensor& targets_S);

// [S] log softmax(hidden E^T)[target], f32, no gradient; 0 where target < 0.
at::Tensor target_log_probs(const at::Tensor& hidden_SD, const at::Tensor& head_VD, const at::Tensor& targets_S);

}  // namespace tessera
