// Both levels of routing in training (DESIGN section 3). A router fills a plan; component layers read their choice from
// it. S = R * T tokens, C chunks, M routed domains, N components a layer, L component layers, K active components.
#pragma once
#include <cstdint>
#include <vector>

#include "core/route.h"
#include "data/calibration.h"
#include "train/blocks.h"
#include "train/component_choice.h"
#include "train/packed_rows.h"
#include "train/parameters.h"

namespace tessera {

// What the routers need beside the text.
struct RoutingOptions {
  double domain_dropout = 0;             // share of pieces that get the uniform pi
  uint64_t dropout_seed = 0;             // with the place of a piece it decides which
  std::vector<uint8_t> allowed_domains;  // [M], empty: all; 0: never active
  bool balances_labels = false;          // in level 1's loss every domain of the batch counts alike, not every chunk
  const Route* replay = nullptr;         // R = 1: forces components and weights
};

// Level 1's decisions.
struct DomainPlan {
  std::vector<float> pi_CM;  // in force in the chunk
  std::vector<uint8_t> active_CM;
  at::Tensor logits_CM;  // level 1's output at the END of each chunk (for the next one); undefined: not learnt
  at::Tensor loss;       // cross-entropy against the next chunk's share of each domain, mean over the chunks that
                         // have a labelled next one; undefined: nothing to learn from
};

// One layer's choice.
struct LayerChoice {
  at::Tensor ids_SK;      // int64
  at::Tensor weights_SK;  // differentiable
  at::Tensor z_loss;      // mean over tokens of logsumexp(eligible scores)^2
};

// Level 1. Reads the embeddings [R, T, D], which may be undefined where it has its own, without a gradient into them:
// the encoder is learnt by its own loss.
DomainPlan plan_domains(const Architecture& architecture, const Parameters& parameters, const PackedRows& rows,
                        const at::Tensor& embedded_RTD, const RoutingOptions& options);

// What level 1, an encoder, said before each labelled chunk and what the chunk was, one entry a piece.
void append_decisions(const DomainPlan& plan, const PackedRows& rows, int num_domains,
                      std::vector<TextDecisions>& texts);

// Level 2. plan() is called once; choose() before each component layer. The planner chooses for every layer at once in
// plan and ignores x; a gate uses x; "sum" adds both scores; "trunk" chooses for every layer at the first component
// layer, from its x. Heads of domains that are nowhere active are not read.
class ComponentChooser {
 public:
  ComponentChooser(const Architecture& architecture, const Parameters& parameters, const PackedRows& rows,
                   const RoutingOptions& options);
  // x_RTD: what the trunk reads, in the weights' precision.
  void plan(const at::Tensor& x_RTD, const DomainPlan& domains);
  LayerChoice choose(int layer, at::Tensor x_SD);

 private:
  const at::Tensor& barred();
  at::Tensor log_prior(const DomainPlan& domains) const;
  at::Tensor head_scores(const at::Tensor& x_SD) const;
  ComponentChoice select(at::Tensor scores_SLN, int64_t first);
  static LayerChoice layer_of(const ComponentChoice& choice, int64_t l);
  LayerChoice replayed(int64_t layer, const at::Tensor& x_SD) const;

  const Architecture& architecture_;
  const Parameters& parameters_;
  const PackedRows& rows_;
  const RoutingOptions& options_;
  std::vector<std::vector<int32_t>> eligible_;  // by chunk
  std::vector<int32_t> chunk_S_;                // of each token
  std::vector<uint8_t> active_CM_;
  at::Tensor barred_SN_;     // made when it is needed
  at::Tensor log_prior_SN_;  // beta log pi' of the owner; undefined unless the ablation is on
  at::Tensor planned_SLN_;   // the planner's scores
  ComponentChoice planned_;  // of all layers, once made
};

// Rotary positions of the rows, from a table that is kept.
Rotary router_rotary(const PackedRows& rows, int head_dim, double theta, at::ScalarType dtype);

// A router's pre-norm transformer block on x [R, T, width]: full attention heads, SwiGLU of twice the width. Its
// weights are named `prefix` + "attention.query" and so on, as core/tensor_names lists them.
at::Tensor router_block(const Parameters& parameters, const std::string& prefix, const at::Tensor& x_RTD, int num_heads,
                        double eps, const Rotary& rotary, const Visible& visible);

}  // namespace tessera
