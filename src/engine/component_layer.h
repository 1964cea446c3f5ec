// The component layer of DESIGN section 2 for R rows: each base bank once a row that needs it, each component's own
// part once a row that chose it, one product with the component's output matrix. It takes a choice and never calls a
// router.
#pragma once
#include "engine/residency.h"
#include "engine/routers.h"
#include "engine/transformer.h"

namespace tessera::engine {

class ComponentLayer {
 public:
  // With a residency, components are taken from it as they come into memory; without (null), all are where `weights`
  // says. All outlive the object.
  ComponentLayer(const Hierarchy& hierarchy, Transformer& transformer, Residency* residency)
      : hierarchy_(hierarchy), transformer_(transformer), residency_(residency) {}

  // x_RD[r] += sum over k of weight * component(normed[r]) (+ the always-on component), components in order of their
  // ids. `normed` is quantised already when the weights want that. A residency expects the choice already.
  void add(const ComponentLayerWeights& weights, const LayerChoice& choice, Activations& normed, float* x_RD,
           int64_t width);

 private:
  const Hierarchy& hierarchy_;
  Transformer& transformer_;
  Residency* residency_;
  AlignedVector<float> bank_pre_, unique_pre_, always_pre_;
  Activations hidden_, always_;
};

}  // namespace tessera::engine
