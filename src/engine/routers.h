// Both levels of routing in inference (DESIGN section 3): the same decisions as train/routers, with kept keys and
// values. Level 1 runs once a chunk, when its last token is known; level 2 once a token, before the first layer or on
// what enters the first component layer ("trunk"), or once a token and layer (a gate).
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
  // Begins a pass of these rows, with a planner's choices for them; x_RD is what the trunk reads.
  void plan(std::span<const TokenRow> rows, const float* x_RD);
  // The choices of the layers [layer, choosable_end(layer)) from x, the normed input of the component layer `layer`: a
  // gate's, or those of heads on the trunk.
  void choose(int layer, Activations& x);
  // Empty until it is made in this pass.
  const LayerChoice& choice(int layer) const { return choices_[static_cast<size_t>(layer)]; }
  // A planner's choices need no layer's input: all may be asked for as soon as the pass is planned.
  bool chooses_early() const { return architecture_.component_router.kind == "planner"; }
  // The layers [layer, end) whose choices are made together.
  int choosable_end(int layer) const {
    return architecture_.component_router.kind == "gate" ? layer + 1 : architecture_.trunk.num_layers;
  }
  // The domains [D] that the pass chooses from, and those that level 1 has decided for the tokens that follow (none
  // where nothing changes).
  std::vector<uint8_t> domains_of_pass() const;
  std::vector<uint8_t> domains_after_pass() const;

 private:
  // pi of each chunk from `begin` on; `ends`: where they end.
  std::vector<std::vector<float>> encode_chunks(Sequence& sequence, int64_t begin, const std::vector<int64_t>& ends);
  void begin_chunk(Sequence& sequence, int64_t position);
  std::span<const WeightMatrix> heads(int layer) const;
  void choose_rows(Transformer& worker, AlignedVector<float>& scores, int64_t first, int64_t count, int layer,
                   Activations& x);
  void pick(const float* scores, int layer, int64_t first, int64_t count);
  std::vector<uint8_t> decided_domains(const Sequence& sequence) const;  // [M] by next_pi_M
  bool is_active(const Route& route, size_t chunk, size_t domain) const;
  void add_active(const Route& route, int64_t position, std::vector<uint8_t>& active_D) const;

  const Architecture& architecture_;
  const Weights& weights_;
  std::vector<uint8_t> allowed_;
  Transformer& transformer_;
  std::vector<int> routed_, routed_index_;  // routed_index_: of each domain among the routed, -1: always
  const std::vector<uint8_t> added_;        // [M]
  std::vector<int64_t> domain_sizes_;
  std::vector<std::vector<int32_t>> offsets_;  // by layer scored at once, of each component in a row of scores
  size_t num_components_;
  Rotary encoder_rotary_, planner_rotary_;
  Activations embedded_, normed_;
  AlignedVector<float> x_;
  // Of the pass that plan() began.
  std::vector<TokenRow> rows_;
  std::vector<float> added_RD_;  // to scores of a domain's components: -infinity where it is not active, else 0 or, in
                                 // the ablation, beta log pi'
  std::vector<LayerChoice> choices_;  // by layer
  // By thread, of a block of rows: [rows, L N], of a row one domain after the other, each [L, its components], as heads
  // give them; L = 1 for a gate. Of domains that are not active it holds nothing meaningful.
  std::vector<AlignedVector<float>> scores_;
};

}  // namespace tessera::engine
