// A domain added to a trained model: its components, planner head and level-1 class are new, all that was there is kept
// bit for bit. So a text of the old domains costs what it cost, but in chunks that level 1 gives to the new domain.
#pragma once
#include <string>
#include <vector>

#include "core/model_file.h"
#include "train/parameters.h"

namespace tessera {

// The model's architecture with `name` behind its domains, with as many components as the last routed one has. Throws
// Error{kConfig} when the model has no domains to add to, or has that one.
Architecture with_domain(const Architecture& architecture, const std::string& name);

// Holds the old values of a grown model: trained are only the new rows of what has a row a component or class.
class OldWeights {
 public:
  OldWeights() = default;
  // Copies the model's tensors into `parameters` (of with_domain()'s architecture) and stops the gradients of those
  // that have nothing new in them.
  OldWeights(const ModelFolder& old, const Parameters& parameters);
  // After each update: puts the old rows back.
  void restore(const Parameters& parameters) const;
  // On resumption: takes them from `parameters`, a checkpoint's; the model they came from may have moved on.
  void take_from(const Parameters& parameters);

 private:
  struct Rows {
    std::string name;
    at::Tensor value;
  };
  std::vector<Rows> rows_;
};

}  // namespace tessera
