// core/scorer.h on the engine.
#pragma once
#include "core/scorer.h"
#include "engine/engine.h"

namespace tessera::engine {

class EngineScorer : public Scorer {
 public:
  explicit EngineScorer(Engine& engine) : engine_(engine) {}  // outlives the scorer
  int vocab_size() const override { return engine_.vocab_size(); }
  int context_length() const override { return engine_.context_length(); }
  std::vector<ScoredText> score(std::span<const std::vector<int32_t>> texts, std::span<const int> domain_labels = {},
                                std::span<const Route> replay = {}) override;

 private:
  Engine& engine_;
};

}  // namespace tessera::engine
