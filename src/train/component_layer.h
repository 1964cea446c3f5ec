// The component layer of DESIGN section 2 as one differentiable function: one permutation of the tokens, the products
// of all components in one batch, base banks computed once a token. It takes a choice and never calls a router.
#pragma once
#include <vector>

#include "train/torch.h"

namespace tessera {

// Stacked weights of one layer. N components, G banks (undefined tensors when G = 0), D width, Fb and Fu widths.
struct ComponentWeights {
  at::Tensor bank_gate_up;       // [G, 2 Fb, D]: gate rows, then up rows
  at::Tensor component_gate_up;  // [N, 2 Fu, D]; undefined when Fu = 0
  at::Tensor component_down;     // [N, D, Fb + Fu]
  std::vector<int> bank_of;      // [N]
};

// y = sum over k of weights_SK[:, k] * component_{ids_SK[:, k]}(x). x_SD [S, D], ids_SK int64 (distinct in a row).
// Differentiable in x, weights_SK and the three stacks; components and banks that no token chose don't matter,
// whatever their weights.
at::Tensor component_layer(const at::Tensor& x_SD, const at::Tensor& ids_SK, const at::Tensor& weights_SK,
                           const ComponentWeights& weights);
// The same on the CPU kernels, for f32 and bf16, a product a component: what no token chose is not even read. A stack
// that has a gradient already (an earlier micro-batch's) gets this pass's added to it by the products themselves,
// without a tensor that autograd would add. component_layer calls it where it applies, absent stacks as empty ones.
at::Tensor component_layer_cpu(const at::Tensor& x_SD, const at::Tensor& ids_SK, const at::Tensor& weights_SK,
                               const ComponentWeights& weights);

}  // namespace tessera
