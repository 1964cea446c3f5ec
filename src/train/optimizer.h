// The optimizer over the learnt parameters, its schedule, and gradient clipping.
//   adamw   AdamW (Loshchilov, Hutter 2019) for everything
//   muon    Muon (Jordan et al. 2024) for matrices inside the network: the momentum, orthogonalised by five steps of
//           Newton-Schulz, scaled to AdamW's usual size, 0.2 sqrt(max(rows, columns)) (Liu et al. 2025, arXiv
//           2502.16982), so that one learning rate serves both; AdamW for the embedding, the heads and the vectors
#pragma once
#include <map>
#include <string>
#include <vector>

#include "core/config.h"
#include "train/parameters.h"

namespace tessera {

// Learning rate of step `step` (from 0): linear warm-up, then cosine, or stable with a linear decay at the end ("wsd").
double learning_rate(const OptimizerConfig& config, int64_t step, int64_t num_steps);

class Optimizer {
 public:
  // Moves the learnt parameters into one flat buffer; views of them made before go on showing their old memory.
  Optimizer(const Parameters& parameters, const OptimizerConfig& config);

  // Global norm of the gradients; the next step() takes them scaled down to clip_norm when it is above. Absent
  // gradients count as zero.
  double clip_gradients();
  // One update; then clears the gradients.
  void step(double lr);

  // State by name: "NAME.m" and, of AdamW, "NAME.v", f32.
  std::map<std::string, at::Tensor> state() const;
  // Throws Error{kData} naming the tensor that is missing or of another shape.
  void load_state(const SafetensorsFile& file, int64_t num_steps);

 private:
  struct Group {  // with the same rule, weight decay and learning rate
    bool muon = false;
    double weight_decay = 0, lr_scale = 1;
    std::vector<std::string> names = {};
    std::vector<at::Tensor> parameters = {};
    std::vector<int64_t> base_widths = {};  // of Muon: columns of a component's output matrix that read its bank, or 0
    std::vector<int64_t> begins = {};       // of each parameter in the flat buffers
  };
  void adamw_step(const Group& group, double lr);
  void muon_step(const Group& group, double lr);
  // The part of a flat buffer that is parameter `i` of a group, in its shape.
  static at::Tensor part(const at::Tensor& flat, const Group& group, size_t i);

  OptimizerConfig config_;
  std::vector<Group> groups_;  // AdamW's, then Muon's
  // [elements of all groups], each parameter on a boundary of 64 bytes: the parameters, their first moments, and, of
  // AdamW's groups alone, the second ones. Gradients are where autograd puts them: a flat buffer of theirs would live
  // through the forward pass, beside the activations (docs/LOG.md).
  at::Tensor parameters_, m_, v_;
  double grad_scale_ = 1;
  int64_t num_steps_ = 0;
};

// The nearest semi-orthogonal matrix to each of a stack [..., rows, columns], roughly: singular values come out between
// 0.7 and 1.2.
at::Tensor orthogonalised(const at::Tensor& matrices);

}  // namespace tessera
