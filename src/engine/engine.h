// A model that runs on the CPU without LibTorch: one forward pass over the tokens of any number of texts. Prefill,
// decode, chunks of a prompt and batches of texts give the same bits, on any number of threads (kernels/matvec.h).
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/component_layer.h"
#include "engine/residency.h"
#include "engine/routers.h"
#include "engine/sequence.h"
#include "engine/transformer.h"
#include "engine/weights.h"

namespace tessera::engine {

struct EngineOptions {
  int num_threads = 0;                   // 0: all CPUs
  std::vector<uint8_t> allowed_domains;  // [M], empty: all; the weights of the others are never read
  KvType kv_type = KvType::kF32;
  std::optional<MemoryPlan> plan;    // of a budget (plan_memory); none: the weights stay in the mapped file
  Paging paging = Paging::kByRoute;  // with a budget
};

enum class Outputs { kNone, kLast, kAll };

// Tokens that a text goes on with, and which of their final hidden rows are wanted.
struct Segment {
  Sequence* sequence;
  std::span<const int32_t> tokens;
  Outputs outputs = Outputs::kLast;
};

class Engine {
 public:
  // Throws Error{kData} for a model that the engine can't run.
  explicit Engine(ModelFolder model, EngineOptions options = {});

  const Architecture& architecture() const { return model_.architecture; }
  const ModelFolder& model() const { return model_; }
  bool allows_all_domains() const { return options_.allowed_domains.empty(); }
  int vocab_size() const { return model_.architecture.trunk.vocab_size; }
  int context_length() const { return model_.architecture.trunk.context_length; }
  int num_threads() const { return pool_.size(); }
  const std::optional<MemoryPlan>& plan() const { return options_.plan; }
  // Null without a budget.
  const Residency* residency() const { return residency_.get(); }
  // The most tokens that a pass may have so that the plan holds.
  int64_t most_pass_tokens() const { return residency_ ? kBudgetPassTokens : INT64_MAX; }

  Sequence new_sequence(bool records_route = false) const;
  // A text that begins with the first `num_tokens` tokens of another, without running them again. num_tokens: one of
  // reusable_prefix().
  Sequence prefix_of(const Sequence& sequence, int64_t num_tokens) const;
  // The longest beginning of at most `most` tokens that can be taken over: for models with a domain router, up to a
  // chunk's start.
  int64_t reusable_prefix(int64_t most) const;

  // Runs the segments (one a sequence) and gives the wanted hidden rows after the final norm, [rows, D], in order.
  // Throws Error{kData} for tokens outside the vocabulary and a text beyond the context, which leave the sequences as
  // they were, and for output that is not finite; Error{kFile} when the model's file was cut short meanwhile: after
  // those the sequences are of no more use.
  std::span<const float> forward(std::span<const Segment> segments);
  // Seconds spent on routing, both levels, in all passes so far.
  double routing_s() const { return routing_s_; }
  // Logits [rows, V] of hidden rows [rows, D]. Throws as forward does.
  void logits(std::span<const float> hidden_RD, float* out_RV);

 private:
  void check_finite(std::span<const float> values) const;
  struct Pass {
    std::vector<TokenRow> rows;
    std::vector<RowPlace> places;
    std::vector<int64_t> wanted;  // rows
  };
  Pass begin_pass(std::span<const Segment> segments);
  void expect_choices(int layer);
  void add_previous_tokens(std::span<const TokenRow> rows);

  ModelFolder model_;
  EngineOptions options_;
  std::unique_ptr<Residency> residency_;  // with a budget
  Weights weights_;
  ThreadPool pool_;
  Transformer transformer_;
  Routers routers_;
  ComponentLayer component_layer_;
  Rotary rotary_;
  AlignedVector<float> x_;
  std::vector<float> hidden_;
  double routing_s_ = 0;
  Activations previous_, normed_, head_input_;
};

}  // namespace tessera::engine
