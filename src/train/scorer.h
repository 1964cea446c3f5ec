// core/scorer.h on a LibTorch model.
#pragma once
#include "core/scorer.h"
#include "train/model.h"

namespace tessera {

class ModelScorer : public Scorer {
 public:
  // `model` outlives the scorer.
  explicit ModelScorer(const Model& model, RoutingOptions options = {}) : model_(model), options_(std::move(options)) {}
  int vocab_size() const override { return model_.architecture().trunk.vocab_size; }
  int context_length() const override { return model_.architecture().trunk.context_length; }
  std::vector<ScoredText> score(std::span<const std::vector<int32_t>> texts, std::span<const int> domain_labels = {},
                                std::span<const Route> replay = {}) override;

 private:
  const Model& model_;
  RoutingOptions options_;
};

// Logits [T, V] (f32, CPU) of one text, and its route when asked for. Throws Error{kData} for a token that is not in
// the vocabulary, as ModelScorer does.
at::Tensor logits_of(const Model& model, const std::vector<int32_t>& tokens, const RoutingOptions& options = {},
                     Route* route = nullptr);

// "cpu" or "cuda"; throws Error{kConfig} when there is no such device here.
at::Device device_named(const std::string& name);

}  // namespace tessera
