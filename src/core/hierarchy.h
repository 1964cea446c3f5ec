// The architecture as plain data: what the trainer builds, the cost model counts and the engine loads. DESIGN
// section 2.
//
//   component c of layer l, with base bank g = base(c):
//     b_g = silu(x Bg_gate) * (x Bg_up)      [Fb]  once per token and bank, however many components use it
//     u_c = silu(x Uc_gate) * (x Uc_up)      [Fu]
//     y_c = [b_g ; u_c] Wc                   [D]
//   layer: y = sum over the K chosen c of p_c * y_c
//
// One domain, no banks and a linear gate is the flat MoE (Mixtral's shape); no components is a dense model (Llama's).
#pragma once
#include <algorithm>
#include <string>
#include <vector>

namespace tessera {

struct Domain {
  std::string name;        // "code"; unique
  int num_components = 4;  // of each component layer; the domain's ids follow those of the domains before it
  bool always = false;     // the general domain: eligible in every text, never a level-1 class
  std::vector<std::string> components;  // names, optional: empty or num_components of them
  bool added = false;  // came after the others were trained: eligible only where level 1 finds it the most probable
};

struct Hierarchy {
  std::vector<Domain> domains;  // M of level 1 plus the `always` ones; empty: a dense model
  int num_active = 2;           // K: components a token and layer
  int num_banks = 0;            // G: base banks a layer; 0: nothing is shared
  std::vector<int> base;        // [N] bank of each component; empty: component c uses bank c mod G
  int base_width = 0;           // Fb: width of a base bank (0 exactly when num_banks is 0)
  int unique_width = 0;         // Fu: width of a component's own part
  int always_on_width = 0;      // width of an always-on component beside the chosen ones; 0: none
};

struct Trunk {
  int vocab_size = 0;        // V
  int width = 0;             // D
  int num_layers = 0;        // L
  int num_heads = 0;         // query heads a layer
  int num_kv_heads = 0;      // key/value heads a layer; divides num_heads
  int head_dim = 0;          // even, for RoPE; 0: width / num_heads
  int context_length = 512;  // longest text the model is trained on, in tokens
  int num_dense_layers = 0;  // the first layers have a dense feed-forward block
  int dense_width = 0;       // its width (also of every layer when there are no components)
  double rope_theta = 10000.0;
  // [head_dim / 2]: rotation i turns by position * rope_theta^(-2i / head_dim) / rope_divisors[i], as models do that
  // were trained on for longer contexts (linear scaling: all the same; Llama 3.1: the slow ones). Empty: all 1.
  std::vector<double> rope_divisors;
  double norm_eps = 1e-5;
  bool tied_embeddings = true;  // the output head is the embedding table
  // The trunk reads e_t + P e_(t-1), P [D, D], e_t alone at a text's start: a head that looks for its token among the
  // tokens before others needs one layer then, not two, and copies from the context much sooner (docs/LOG.md; Olsson et
  // al. 2022, arXiv 2209.11895, do it to the keys).
  bool previous_token = false;
};

// Level 1: a block-causal encoder over the tokens, once a chunk. DESIGN section 3.
struct DomainRouter {
  std::string kind = "none";  // "encoder", "uniform" (all domains always active), "oracle" (the label; training
                              // and evaluation only), "random"; "none" for one domain
  int width = 96;
  int num_layers = 1;
  int num_heads = 4;
  int chunk_tokens = 64;    // chunks end after 16 and 64 tokens of a document, then every chunk_tokens
  int window_tokens = 256;  // how far back a token sees
  // So many tokens are one position of the encoder, by the mean of their embeddings (as patches of an image are:
  // Dosovitskiy et al. 2021); divides 16, chunk_tokens and window_tokens.
  int patch_tokens = 1;
  bool own_embedding = false;  // a token table of its own [V, width] instead of a projection of the trunk's: what it
                               // learnt stays true while the trunk's moves (distil needs it)
  double margin = 0.5;         // a second domain enters when pi1 - pi2 < margin, leaves above margin + hysteresis
  double hysteresis = 0.1;
  double temperature = 1.0;  // of pi, from calibration
  double floor = 0;          // taken off each domain's probability, from calibration: trained on text that may change
                             // its domain at any chunk, level 1 never lets a domain's probability fall under it
};

// Level 2: which components, for every layer at once ("planner", "trunk") or by a linear gate a layer ("gate").
struct ComponentRouter {
  // "planner": a causal transformer over the token embeddings, with a head a domain; "trunk": such heads on what enters
  // the first component layer, so that the dense layers before it are that transformer; "gate": Mixtral's linear gate;
  // an ablation: "sum" adds planner and gate (the choice then waits for its layer). The sizes are the planner's.
  std::string kind = "planner";
  int width = 96;
  int num_layers = 1;
  int num_heads = 4;
  double prior_weight = 0.0;  // beta of the term beta log pi' in the score; an ablation
  // Group-limited top-K, an ablation (DeepSeek-V3, arXiv 2412.19437, section 2.1.2): a token chooses among the general
  // domain and the max_groups routed domains whose K best selection scores sum to the most. 0: no limit.
  int max_groups = 0;
};

struct Architecture {
  Trunk trunk;
  Hierarchy hierarchy;
  DomainRouter domain_router;
  ComponentRouter component_router;
};

inline int num_components(const Hierarchy& h) {  // N a layer
  int n = 0;
  for (const Domain& d : h.domains) n += d.num_components;
  return n;
}
inline int head_dim(const Trunk& t) { return t.head_dim ? t.head_dim : t.width / t.num_heads; }
inline int bank_of(const Hierarchy& h, int component) {  // -1: no bank
  if (h.num_banks == 0) return -1;
  return h.base.empty() ? component % h.num_banks : h.base[static_cast<size_t>(component)];
}
inline bool has_components(const Architecture& a, int layer) {
  return !a.hierarchy.domains.empty() && layer >= a.trunk.num_dense_layers;
}
inline int num_component_layers(const Architecture& a) {
  return a.hierarchy.domains.empty() ? 0 : a.trunk.num_layers - a.trunk.num_dense_layers;
}

// "domain.name", or "domain.3" where components have no names.
inline std::string component_name(const Hierarchy& h, int component) {
  for (const Domain& d : h.domains) {
    if (component < d.num_components)
      return d.name + "." +
             (d.components.empty() ? std::to_string(component) : d.components[static_cast<size_t>(component)]);
    component -= d.num_components;
  }
  return "?";
}

// The domains that level 1 chooses among (those that aren't `always`), as indices into h.domains.
inline std::vector<int> routed_domains(const Hierarchy& h) {
  std::vector<int> ids;
  for (int i = 0; i < static_cast<int>(h.domains.size()); ++i) {
    if (!h.domains[static_cast<size_t>(i)].always) ids.push_back(i);
  }
  return ids;
}
inline std::vector<std::string> routed_names(const Hierarchy& h) {
  std::vector<std::string> names;
  for (int d : routed_domains(h)) names.push_back(h.domains[static_cast<size_t>(d)].name);
  return names;
}
// Index among the routed domains, -1: not one of them.
inline int routed_index(const Hierarchy& h, const std::string& name) {
  const std::vector<std::string> names = routed_names(h);
  const auto it = std::find(names.begin(), names.end(), name);
  return it == names.end() ? -1 : static_cast<int>(it - names.begin());
}
// [N] index into h.domains of the owner of each component.
inline std::vector<int> owner_of_components(const Hierarchy& h) {
  std::vector<int> owner;
  for (int i = 0; i < static_cast<int>(h.domains.size()); ++i) {
    owner.insert(owner.end(), static_cast<size_t>(h.domains[static_cast<size_t>(i)].num_components), i);
  }
  return owner;
}

}  // namespace tessera
