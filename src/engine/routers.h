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
  Routers(const Architecture& architecture, const Weights& weights, std::vector<uint8_t> allowed,
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
  void choose_row(size_t row, size_t layer, const float* gate_N, const std::vector<float>& bias_N, float* keys_K,
                  int32_t* ids_K, float* weights_K) const;
  std::vector<uint8_t> decided_domains(const Sequence& sequence) const;  // [M] by next_pi_M
  bool is_active(const Route& route, size_t chunk, size_t domain) const;
  void add_active(const Route& route, int64_t position, std::vector<uint8_t>& active_D) const;

  const Architecture& architecture_;
  const Weights& weights_;
  std::vector<uint8_t> allowed_;
  Transformer& transformer_;
  std::vector<int> routed_, routed_index_;  // routed_index_: of each domain among the routed, -1: always
  const std::vector<uint8_t> added_;        // [M]
  size_t num_components_;
  Rotary encoder_rotary_, planner_rotary_;
  Activations embedded_, normed_;
  AlignedVector<float> x_, token_D_;
  // Of the pass that plan() began.
  std::vector<TokenRow> rows_;
  std::vector<uint8_t> active_RD_;  // domains
  std::vector<float> prior_RD_;     // beta log pi'; empty unless the ablation is on
  // A planner's scores [R, L N], of a row one domain after the other, each [L, its components]: as its heads give them.
  // Of domains that are not active, and for a gate, it holds nothing meaningful.
  AlignedVector<float> planned_;
};

}  // namespace tessera::engine
