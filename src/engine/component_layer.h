// The component layer of DESIGN section 2 for R rows: each base bank once a row that needs it, each component's own
// part once a row that chose it, one product with the component's output matrix. It takes a choice and never calls a
// router.
#pragma once
#include "engine/routers.h"
#include "engine/transformer.h"

namespace tessera::engine {

class ComponentLayer {
 public:
  ComponentLayer(const Hierarchy& hierarchy, Transformer& transformer)
      : hierarchy_(hierarchy), transformer_(transformer) {}

  // x_RD[r] += sum over k of weight * component(normed[r]) (+ the always-on component), components in order of their
  // ids. `normed` is quantised already when the weights want that.
  void add(const ComponentLayerWeights& weights, const LayerChoice& choice, Activations& normed, float* x_RD,
           int64_t width);

 private:
  const Hierarchy& hierarchy_;
  Transformer& transformer_;
  std::vector<float> bank_pre_, unique_pre_, always_pre_;
  Activations hidden_, always_;
};

}  // namespace tessera::engine
