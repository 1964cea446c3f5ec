// AdamW (Loshchilov, Hutter 2019) over the learnt parameters, its schedule, and gradient clipping.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/config.h"
#include "train/parameters.h"

namespace tessera {

// Learning rate of step `step` (from 0): linear warm-up, then cosine, or stable with a linear decay at the end ("wsd").
double learning_rate(const OptimizerConfig& config, int64_t step, int64_t num_steps);

class AdamW {
 public:
  AdamW(const Parameters& parameters, const OptimizerConfig& config);

  // Global norm of the gradients; scales them down to clip_norm when it is above. Absent gradients count as zero.
  double clip_gradients();
  // One update with the gradients as they are; then clears them.
  void step(double lr);
  int64_t num_steps() const { return num_steps_; }

  // State by name: "NAME.m" and "NAME.v", f32.
  std::map<std::string, at::Tensor> state() const;
  // Throws Error{kData} naming the tensor that is missing or of another shape.
  void load_state(const SafetensorsFile& file, int64_t num_steps);

 private:
  struct Group {  // with the same weight decay
    double weight_decay;
    std::vector<std::string> names;
    std::vector<at::Tensor> parameters, m, v, steps;
  };
  OptimizerConfig config_;
  std::vector<Group> groups_;
  int64_t num_steps_ = 0;
};

}  // namespace tessera
