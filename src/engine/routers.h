// Both levels of routing in inference (DESIGN section 3): the same decisions as train/routers, with kept keys and
// values. Level 1 runs once a chunk, when its last token is known; level 2 once a token, before the first layer.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/hierarchy.h"
#include "engine/sequence.h"
#include "engine/transformer.h"

namespace tessera::engine {

// The choice of one layer: components and weights by row.
struct LayerChoice {
  std::vector<int32_t> ids_RK;
  std::vector<float> weights_RK;
};

// One row of a pass: which token of which text.
struct TokenRow {
  Sequence* sequence;
  int64_t position;
};

class Routers {
 public:
  // All outlive the object. `allowed` [M] may be empty (all domains).
  Routers(const Architecture& architecture, const Weights& weights, std::vector<uint8_t> allowed, KvType kv_type,
          Transformer& transformer);

  void prepare(Sequence& sequence) const;  // its caches
  // Level 1 for tokens [begin, sequence.length()), which were just appended: begins chunks with the decision in force
  // and encodes those that end.
  void decide_domains(Sequence& sequence, int64_t begin);
  // Level 2's scores for the rows of a pass; embedded_RD are their embeddings.
  void plan(std::span<const TokenRow> rows, const float* embedded_RD);
  // A planner's choices need no layer's input: all may be asked for as soon as the pass is planned.
  bool chooses_early() const { return architecture_.component_router.kind == "planner"; }
  // The domains [D] that the pass chooses from, and those that level 1 has decided for the tokens that follow (none
  // where nothing changes).
  std::vector<uint8_t> domains_of_pass() const;
  std::vector<uint8_t> domains_after_pass() const;
  // The choice of a layer. A gate reads the layer's normed input; a planner ignores it.
  LayerChoice choose(int layer, Activations& x);

 private:
  // pi of each chunk from `begin` on; `ends`: where they end.
  std::vector<std::vector<float>> encode_chunks(Sequence& sequence, int64_t begin, const std::vector<int64_t>& ends);
  void begin_chunk(Sequence& sequence, int64_t position);
  std::vector<uint8_t> decided_domains(const Sequence& sequence) const;  // [M] by next_pi_M
  void add_active(const Route& route, int64_t position, std::vector<uint8_t>& active_D) const;

  const Architecture& architecture_;
  const Weights& weights_;
  std::vector<uint8_t> allowed_;
  KvType kv_type_;
  Transformer& transformer_;
  std::vector<int> routed_, owner_N_, routed_index_;  // routed_index_: of each domain among the routed, -1: always
  Rotary encoder_rotary_, planner_rotary_;
  Activations embedded_, normed_;
  AlignedVector<float> x_;
  // Of the pass that plan() began.
  std::vector<TokenRow> rows_;
  std::vector<uint8_t> eligible_RN_;
  std::vector<float> prior_RN_;     // beta log pi'; empty unless the ablation is on
  std::vector<float> planned_RLN_;  // empty for a gate
};

}  // namespace tessera::engine
