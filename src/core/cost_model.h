// What an architecture costs, computed from its tensor list without allocating it. DESIGN section 2.
//
// Conventions. Total counts every number in the model file, embeddings, routers and selection biases included. Active
// counts the weights that one token is multiplied with: head, norms and both routers included, the embedding look-up
// excluded (a tied table counts once in total, and its use as head counts as active); K components, and as many
// distinct base banks as K components can have, min(K, G); of the planner's heads those of the general domains and of
// the largest other domain, that is one active domain (all heads where level 1 is "none" or "uniform": then all are
// active). The selection bias is added, not multiplied: it is in the total only.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "core/config.h"
#include "core/hierarchy.h"
#include "core/tensor_names.h"

namespace tessera {

inline constexpr int kNumParts = static_cast<int>(Part::kComponentRouter) + 1;

struct ParameterCount {
  struct OfPart {
    int64_t total = 0, active = 0;
  };
  std::array<OfPart, kNumParts> parts{};  // by Part
  int64_t buffers = 0;                    // of the total: not learnt by gradient

  const OfPart& of(Part part) const { return parts[static_cast<size_t>(part)]; }
  int64_t total() const;
  int64_t active() const;
  int64_t component_weights() const;  // of the components and the base banks they share
};

ParameterCount count_parameters(const Architecture& architecture);

// {"total_parameters", "active_parameters", "flat_total_parameters", "flat_active_parameters",
//  "parts": {part: {"total", "active"}}, "flat_parts"}: a model beside its flat twin.
Json parameters_json(const Architecture& architecture);

// Bytes. With n = micro_batch_tokens and s bytes an activation (4; with bf16: 2), nothing recomputed:
//   weights      4 a parameter, with bf16 2 more for the copy that a GPU's matrix products read
//   gradients    4 a learnt parameter;  moments: 8 (AdamW's two)
//   activations  n s (sum over layers of the attention block's 3 D + 2 (heads + kv heads) head_dim
//                and of the feed-forward block's 2 D + what its matrices produce), attention scores not kept
//   logits       12 V for each token of a chunk of kLogitsChunkTokens: logits, their log-softmax and gradient in f32
inline constexpr int64_t kLogitsChunkTokens = 512;
struct TrainBytes {
  double weights = 0, gradients = 0, moments = 0, activations = 0, logits = 0;
  double total() const { return weights + gradients + moments + activations + logits; }
};
TrainBytes train_bytes(const Architecture& architecture, const TrainConfig& train);

// Bytes: weights in bf16, and keys and values (trunk and planner) of one text of context_length tokens in bf16.
struct RunBytes {
  double weights = 0, kv_cache = 0;
  double total() const { return weights + kv_cache; }
};
RunBytes run_bytes(const Architecture& architecture);

// FLOPs of one token's forward pass: 2 a multiplied weight (level 1's once a patch), and 4 heads head_dim a layer for
// each position attended to (context_length / 2 on average). A training step costs kTrainPasses times as much: the
// backward pass is two forward ones.
inline constexpr double kTrainPasses = 3;
struct Flops {
  double weights = 0, attention = 0;
  double total() const { return weights + attention; }
};
Flops forward_flops(const Architecture& architecture);

// A stated machine: of its peak, `share_of_peak` is assumed to be reached in training and prompts.
struct Hardware {
  std::string name, basis;  // "8 x H100 SXM"; where the peak comes from
  int num_devices = 1;      // the figures below are of one device
  double peak_flops = 0, share_of_peak = 0, memory_bytes = 0, bytes_per_s = 0;
};
// This machine first: its cores and memory are looked up, its speed a core is stated, not measured.
std::vector<Hardware> known_hardware();

struct HardwareEstimate {
  double train_s = 0;  // all steps
  double train_bytes_a_device =
      0;  // weights, gradients and moments sharded over all devices, a micro-batch over a node
  bool train_fits = false;
  int run_devices = 0;  // the fewest that hold the model and one text; 0: all together don't
  double generate_tokens_per_s =
      0;  // one text on those: bound by reading the active weights and half the cache, or by FLOPs
};
inline constexpr int kDevicesANode = 8;
HardwareEstimate estimate_on(const Hardware& hardware, const Architecture& architecture, const TrainConfig& train);

// The flat MoE with the same trunk, N, K and component width F = Fb + Fu: one domain, no banks, a linear gate a layer.
Architecture flat_twin(const Architecture& architecture);

struct SolvedWidths {
  Architecture architecture;                 // `shape` with its widths set
  double total_share = 0, active_share = 0;  // reached, of the flat MoE's
};
// Finds Fb and Fu of `shape` (without banks: the width of its always-on component, and Fu) so that its total is at most
// `total_share` of `flat`'s and its active parameters within 1 % of `active_share` of flat's: (0.75, 1.0) is the preset
// 75/100, (0.75, 0.75) is 75/75. Multiples of 8 where they suffice. Throws Error{kConfig} when no widths do (too few
// components, or too large a router).
SolvedWidths solve_widths(const Architecture& shape, const Architecture& flat, double total_share, double active_share);

}  // namespace tessera
