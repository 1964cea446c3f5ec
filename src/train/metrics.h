// What a step did, and where it is written: metrics.jsonl and TensorBoard events.
#pragma once
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/event_file.h"
#include "core/hierarchy.h"
#include "train/model.h"
#include "train/packed_rows.h"

namespace tessera {

// Sums over the micro-batches of a step.
class StepMetrics {
 public:
  explicit StepMetrics(const Architecture& architecture);
  void add(const PackedRows& rows, const Forward& forward, double nats);

  double nats = 0;    // sum of the language-model loss over the step's tokens
  int64_t bytes = 0;  // UTF-8 bytes of the step's target tokens
  double gradient_norm = 0, learning_rate = 0, tokens_per_s = 0;
  double domain_loss = 0;  // level 1's cross-entropy, mean over micro-batches; 0 when not learnt
  bool is_finite = true;   // so are the whole loss, the routers' with it, of every micro-batch and the gradient

  double bits_per_byte() const;
  const std::vector<std::vector<int64_t>>& component_picks() const { return picks_LN_; }  // [L][N]
  // [N] picks of each component in a layer if every token's were spread evenly over those eligible for it.
  const std::vector<double>& even_picks() const { return even_picks_N_; }
  // [M text domain][owner]: share of the picks; a row sums to 1.
  std::vector<std::vector<double>> load_by_domain() const;
  std::string line(int64_t batch_tokens) const;  // for a person
  Json to_json(int64_t batch_tokens) const;

 private:
  const Architecture* architecture_;
  std::vector<std::string> owner_names_, text_names_;
  std::vector<int> owner_of_component_;
  std::vector<std::vector<int64_t>> picks_LN_;
  std::vector<double> even_picks_N_;
  std::vector<std::vector<int64_t>> picks_by_text_and_owner_;  // one row more than M: unlabelled text
  int64_t num_micro_ = 0;
};

// Opens RUN/metrics.jsonl, dropping what lies beyond `first_step` (a run that was resumed from an older checkpoint).
class MetricsLog {
 public:
  MetricsLog(const std::filesystem::path& run, int64_t first_step);
  void step(const StepMetrics& metrics, int64_t step, int64_t tokens, int64_t batch_tokens);
  void evaluation(int64_t step, int64_t tokens, const Json& evaluation);

 private:
  void line(const Json& json);
  std::filesystem::path path_;
  std::ofstream file_;
  std::unique_ptr<EventFile> events_;
};

}  // namespace tessera
