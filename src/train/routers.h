// Both levels of routing in training (DESIGN section 3). A router fills a plan; component layers read their choice from
// it. S = R * T tokens, C chunks, M routed domains, N components a layer, L component layers, K active components.
#pragma once
#include <cstdint>
#include <vector>

#include "core/route.h"
#include "train/blocks.h"
#include "train/packed_rows.h"
#include "train/parameters.h"

namespace tessera {

// What the routers need beside the text.
struct RoutingOptions {
  double domain_dropout = 0;             // share of pieces that get the uniform pi
  uint64_t dropout_seed = 0;             // with the place of a piece it decides which
  std::vector<uint8_t> allowed_domains;  // [M], empty: all; 0: never active
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

// Level 1. Reads the embeddings without a gradient into them: the encoder is learnt by its own loss.
DomainPlan plan_domains(const Architecture& architecture, const Parameters& parameters, const PackedRows& rows,
                        const at::Tensor& embedded_RTD, const RoutingOptions& options);

// [S, N] bool: which components level 1 makes eligible for each token.
at::Tensor eligible_components(const Architecture& architecture, const PackedRows& rows, const DomainPlan& plan);

// Level 2. plan() is called once; choose() before each component layer. The planner computes every layer's scores in
// plan and ignores x; a gate uses x.
class ComponentChooser {
 public:
  ComponentChooser(const Architecture& architecture, const Parameters& parameters, const PackedRows& rows,
                   const RoutingOptions& options);
  void plan(const at::Tensor& embedded_RTD, const DomainPlan& domains);
  LayerChoice choose(int layer, const at::Tensor& x_SD) const;

 private:
  const Architecture& architecture_;
  const Parameters& parameters_;
  const PackedRows& rows_;
  const RoutingOptions& options_;
  at::Tensor eligible_SN_;   // bool
  at::Tensor log_prior_SN_;  // beta log pi' of the owner; undefined unless the ablation is on
  at::Tensor planned_SLN_;   // the planner's scores
};

// Weights of a router's transformer block by prefix.
at::Tensor router_block(const Parameters& parameters, const std::string& prefix, const at::Tensor& x_RTD, int num_heads,
                        double eps, const Rotary& rotary, const Visible& visible);

}  // namespace tessera
