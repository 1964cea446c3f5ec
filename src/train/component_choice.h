// Level 2's choice on the CPU: the K best of each token, their weights and the z-loss in one pass over the scores, with
// their gradient. ComponentChooser (train/routers.h) holds the same in tensor operations.
#pragma once
#include <cstdint>
#include <vector>

#include "train/torch.h"

namespace tessera {

struct ComponentChoice {
  at::Tensor ids_SLK;      // int64, the largest first
  at::Tensor weights_SLK;  // softmax over the K chosen scores; at K = 1 over all eligible ones
  at::Tensor z_loss_L;     // mean over tokens of logsumexp(eligible scores)^2; undefined where nothing is learnt
};

// Of scores [S, L, N] (float or double, the bias alike) the K largest scores + bias among the eligible components of
// each token; of equal ones the first. `chunk_S` says which list of `eligible`, K or more, holds for a token.
ComponentChoice choose_components_cpu(const at::Tensor& scores_SLN, const at::Tensor& bias_LN,
                                      const std::vector<int32_t>& chunk_S,
                                      const std::vector<std::vector<int32_t>>& eligible, int k);

}  // namespace tessera
