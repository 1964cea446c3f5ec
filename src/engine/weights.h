// A model folder's tensors as the engine uses them: matrices where they lie (in the mapped file, or in the memory of a
// residency), vectors as f32 copies.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "core/model_file.h"
#include "core/tensor_names.h"
#include "kernels/matvec.h"

namespace tessera::engine {

// A pre-norm transformer block; in a trunk layer with components the feed-forward matrices are empty.
struct BlockWeights {
  std::vector<float> attention_norm, feed_forward_norm;
  WeightMatrix query, key, value, output;
  WeightMatrix gate_up, down;
};

struct BankWeights {
  WeightMatrix gate, up;
};
struct ComponentWeights {
  WeightMatrix gate, up, down;  // gate and up are empty when the unique width is 0
};
struct ComponentLayerWeights {
  std::vector<BankWeights> banks;            // [G]
  std::vector<ComponentWeights> components;  // [N]
  WeightMatrix always_on_gate_up, always_on_down;
  std::vector<float> selection_bias;  // [N]
  WeightMatrix router_gate;
};

struct RouterWeights {
  WeightMatrix input;  // a projection of the trunk's embedding, or (level 1's own_embedding) a token table
  std::vector<BlockWeights> blocks;
  std::vector<float> norm;
  std::vector<WeightMatrix> heads;  // level 1: one; level 2: one a domain
};

struct Weights {
  WeightMatrix embedding, previous_token, head;
  std::vector<float> final_norm;
  std::vector<BlockWeights> blocks;                     // [L]
  std::vector<ComponentLayerWeights> component_layers;  // [L]; empty ones where the layer is dense
  RouterWeights domain_router, component_router;
};

// Where a tensor's bytes are.
using TensorBytes = std::function<const std::byte*(const TensorInfo&)>;

// Throws Error{kData} naming the tensor whose dtype the engine doesn't run. What `bytes` gives outlives the result; of
// matrices nothing is read.
Weights load_weights(const ModelFolder& model, const TensorBytes& bytes);

}  // namespace tessera::engine
