// The one list of tensor names: what a model file holds, in the order it is written, and which stacked training
// parameter each tensor is a slice of. In files a component and a base bank are tensors of their own, contiguous and
// starting on a page, so that each is one read. DESIGN section 5.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/hierarchy.h"

namespace tessera {

// Which part of the model a tensor belongs to; the cost model and `inspect` sum by it.
enum class Part {
  kEmbedding,
  kHead,
  kAttention,  // and what reads the token before, which attention need not find then
  kNorm,
  kDense,
  kBank,
  kComponent,
  kAlwaysOn,
  kDomainRouter,
  kComponentRouter
};
const char* part_name(Part part);

struct TensorSpec {
  std::string name;  // in the model file: "layers.0.components.3.gate"
  std::vector<int64_t> shape;
  Part part;
  int layer = -1;           // -1: not of a layer
  int index = -1;           // component or bank id, -1: neither
  bool page_start = false;  // begins on a 4,096-byte boundary (the first tensor of a component or bank)
  std::string parameter;    // the training parameter it is stored in: "layers.0.components.gate_up"
  int64_t slice = -1;       // index in the parameter's first dimension; -1: the whole parameter
  int64_t row = 0;          // first row within that slice (gate and up share one stacked parameter)
  bool buffer = false;      // not learnt by gradient: the selection bias
};

struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
  Part part;
  bool buffer = false;
};

std::vector<TensorSpec> tensor_specs(const Architecture& architecture);
// The stacked parameters of training, derived from the same list.
std::vector<ParameterSpec> parameter_specs(const Architecture& architecture);
int64_t num_elements(const std::vector<int64_t>& shape);
// What level 2's heads read: as wide as the planner or, on the trunk, as that.
int width_of_heads(const Architecture& architecture);

}  // namespace tessera
